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

    Exit codes: CONNECTIVITY when a file was not uploaded; the pilot goes on.
    """

    options = {"transfer_seconds": Option(float, 60.0, "most time for one file [s]")}
    timeout = 150
    on_failure = CONTINUE
    always = True

    def do(self):
        answer = self.pilot.record()
        failures = [self.upload(answer["log"], "pilot.log")]
        path = os.path.join(self.pilot.workdir, "pilot.json")
        try:
            with open(path, "w") as out:
                json.dump(answer["record"], out, indent=1, sort_keys=True)
            failures.append(self.upload(path, "pilot.json"))
        except OSError as error:  # the log above went out all the same: a full disk is when it is wanted most
            failures.append("pilot.json: %s" % error)
        if any(failures):
            raise CommandFailed(exitcodes.CONNECTIVITY, "not uploaded: " + "; ".join(filter(None, failures)))

    def plan(self):
        self.log(
            "would upload pilot.log and pilot.json to the service, each in at most %g s" % self.options.transfer_seconds
        )

    def upload(self, path, name):
        """Send one file: what went wrong."""
        message = {"op": "upload", "path": path, "name": name}
        answer = self.pilot.call(message, self.options.transfer_seconds) or {"error": "%s: no answer in time" % name}
        if not answer["error"]:
            self.log("%s uploaded, %d bytes" % (name, answer["size"]))
        return answer["error"]
