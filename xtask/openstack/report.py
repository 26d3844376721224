"""Turns a subunit stream of test results into JSON lines, one a test: id, status, reason, details.

    report.py < STREAM > RESULTS
"""
import json
import sys

import subunit
import testtools

PASSED = ("success", "xfail")


def reason(status, text):
    """The one line that says most: why a test was skipped, or the error it ended with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if status == "skip":
        return lines[0] if lines else ""
    if status == "inprogress":
        return "its worker ended before the test did"
    # A traceback: the line behind the last frame, where it ends with the error.
    errors = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    for line in lines[errors[-1] + 1:] if errors else lines:
        head = line.split(":", 1)[0].split("(", 1)[0]
        if not line.startswith(("File ", "^", "~")) and head.replace(".", "").replace("_", "").isalnum() \
                and head.split(".")[-1][:1].isupper():
            return line
    return lines[-1] if lines else status


def main():
    seen = {}

    def got(test):
        text = "\n".join(d.as_text() for name, d in sorted(test["details"].items())
                         if d.content_type.type == "text" and (name.startswith("traceback") or name == "reason"))
        log = "\n".join(d.as_text() for name, d in sorted(test["details"].items())
                        if d.content_type.type == "text" and name.startswith("pythonlogging"))
        begin, end = test["timestamps"]
        seconds = (end - begin).total_seconds() if begin and end else 0
        seen[test["id"]] = (test["status"], seconds, text, log)

    result = testtools.StreamToDict(got)
    result.startTestRun()
    subunit.ByteStreamToStreamResult(sys.stdin.buffer, non_subunit_name="stdout").run(result)
    result.stopTestRun()
    for test, (status, seconds, text, log) in sorted(seen.items()):
        if status == "exists" or test == "stdout":
            continue
        # Set-up of a class is told of only where it is the reason why its tests did not run.
        if status in PASSED and test.startswith(("setUpClass", "tearDownClass")):
            continue
        outcome = "passed" if status in PASSED else "skipped" if status == "skip" else "failed"
        failed = outcome == "failed"
        print(json.dumps({"id": test, "outcome": outcome, "seconds": round(seconds, 3),
                          "reason": "" if outcome == "passed" else reason(status, text),
                          "details": f"{text}\n{log}" if failed else ""}))


if __name__ == "__main__":
    main()
