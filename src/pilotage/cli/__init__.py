"""The `pilotage` command. All but `up`, `flavours`, `generate` are clients of the API and import no server code."""
