"""Where jobs come from: the built-in WMS. The input and output around the decisions of `pilotage.wms`."""
