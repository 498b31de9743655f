"""The command UploadPilotOutput: the pilot's log and record, kept where people can read them."""

import json
import os

from pilotage_node import exitcodes
from pilotage_node.command import CONTINUE, Command, CommandFailed, Option


class UploadPilotOutput(Command):
    """Upload the pilot's whole log as ``pilot.log`` and its record as ``pilot.json``.

    The service has seen most of the log already, piece by piece; this is the whole of it in one file, and the record
    with every command's outcome, every job and the usage. It runs at the end of every pilot, after a failure and after
    a signal too: the pilots that failed are those whose output is wanted. What cannot be uploaded stays beside the
    pilot script, where the resource's own output retrieval finds it.

    Options:
        transfer_seconds: most time for one of the two files [s]

    Facts given: none.

    Exit codes: CONNECTIVITY when a file was not taken, DISK when the record cannot be written; the pilot goes on.
    """

    options = {"transfer_seconds": Option(float, 60.0, "most time for one file [s]")}
    timeout = 150
    on_failure = CONTINUE
    always = True

    def do(self):
        answer = self.pilot.call({"op": "record"}, 30)
        if answer is None:
            raise CommandFailed(exitcodes.INTERNAL, "the runner did not give the pilot's record")
        failures = []
        self.upload(answer["log"], "pilot.log", failures)
        path = os.path.join(self.pilot.workdir, "pilot.json")
        try:
            with open(path, "w") as out:
                json.dump(answer["record"], out, indent=1, sort_keys=True)
        except OSError as error:  # the log above went out all the same: a full disk is when it is wanted most
            failures.append((exitcodes.DISK, "pilot.json: cannot be written: %s" % (error.strerror or error)))
        else:
            self.upload(path, "pilot.json", failures)
        if failures:
            raise CommandFailed(failures[0][0], "not uploaded: " + "; ".join(text for _, text in failures))

    def upload(self, path, name, failures):
        seconds = self.options.transfer_seconds
        answer = self.pilot.call({"op": "upload", "path": path, "name": name}, seconds)
        wrong = "no answer within %g s" % seconds if answer is None else answer.get("error")
        if wrong:
            failures.append((exitcodes.CONNECTIVITY, "%s: %s" % (name, wrong)))
        else:
            self.log("%s uploaded, %d bytes" % (name, answer.get("size") or 0))
