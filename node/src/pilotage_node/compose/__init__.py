"""Composing: a profile and built toolboxes become one pilot script; and back, for those who want to see what it holds.

The same code runs on the server and on a virgin node. It is pure: data in, text out.
"""

from pilotage_node.compose.composer import ComposeError, check_traits, compose
from pilotage_node.compose.script import ScriptError, digest_of, read_script

__all__ = ["ComposeError", "ScriptError", "check_traits", "compose", "digest_of", "read_script"]
