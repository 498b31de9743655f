"""The routes, thin: who may call them is in access.py, what is right is in wms and engines."""
