"""A conformance plugin to begin with: it asks each URL that it is started with, and passes a release
where all of them answer 200. Change what is in this file; wheelwright_plugin can stay as it is."""

import sys
import urllib.error
import urllib.request

from wheelwright_plugin import log, message, serve, value, verdict

MOMENTS = [value("Moment", "MOMENT_BEFORE_TRAFFIC"), value("Moment", "MOMENT_AFTER_PROMOTION")]


class Probes:
    """Keeps nothing between calls: the URLs are the process's arguments."""

    def __init__(self, urls):
        self.urls = urls

    def DescribeConformance(self, request, context):
        tests = [message("Test")(name=url, moment=moment) for moment in MOMENTS for url in self.urls]
        return message("DescribeConformanceResponse")(tests=tests)

    def Run(self, request, context):
        report = message("Report")()
        judged = []
        for url in self.urls if request.moment in MOMENTS else []:
            if request.only and url not in request.only:
                continue
            yield self.progress(url, "RUNNING")
            outcome, reason = self.probe(url, context)
            judged.append((outcome, reason))
            if outcome == "pass":
                report.passed += 1
                yield self.progress(url, "PASSED")
            elif outcome == "fail":
                report.failed += 1
                yield self.progress(url, "FAILED", reason)
            else:
                report.inconclusive += 1
                yield self.progress(url, "INCONCLUSIVE", reason)
        report.verdict.CopyFrom(self.together(judged))
        log("info", "ran", tests=len(judged), version=request.subject.version_to)
        yield message("RunResponse")(report=report)

    @staticmethod
    def progress(url, state, text=""):
        return message("RunResponse")(progress=message("Progress")(test=url, state=value("TestState", "TEST_STATE_" + state), message=text))

    @staticmethod
    def probe(url, context):
        left = context.time_remaining()
        try:
            with urllib.request.urlopen(url, timeout=min(5, left if left else 5)) as answer:
                return ("pass", "") if answer.status == 200 else ("fail", "%s answers %d" % (url, answer.status))
        except urllib.error.HTTPError as e:  # it is there, and it is not well
            return "fail", "%s answers %d" % (url, e.code)
        except Exception as e:  # nobody can know
            return "inconclusive", "%s: %s" % (url, e)

    @staticmethod
    def together(judged):
        """One fail fails, one doubt leaves it open, and so does no test at all."""
        for wanted in ("fail", "inconclusive"):
            for outcome, reason in judged:
                if outcome == wanted:
                    return verdict(outcome, reason, sample=len(judged))
        if not judged:
            return verdict("inconclusive", "no test was run")
        return verdict("pass", sample=len(judged))


if __name__ == "__main__":
    serve("template-python", "0.1.0", conformance=Probes(sys.argv[1:]))
