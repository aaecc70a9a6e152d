"""`fastvlm hub` with the stand-in of the client: every way through, and what a person finds there."""
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from hub_test import FP16, NAMES, ONNX, STANDINS, Place, interrupt, run_cases, sha256, wait_for  # noqa: E402

CLIENT = os.path.join(STANDINS, "aihub_client")
TOKEN = "tokenOf40CharactersThatNobodyMaySee12345"
FAST = ["--wait", "0.05"]
BINARY = b"\x02\x00\x00\x00 not text, as a context binary begins" * 3000


class Case(Place):
    def __init__(self, **state):
        super().__init__(TOKEN)
        os.mkdir(self.path("standin"))
        self.state = {"token": TOKEN, "models": [], "jobs": [], "faults": [], "count": 0, "log": [], "cuts": [], "message": "",
                      "job_states": ["CREATED", "OPTIMIZING_MODEL", "SUCCESS"], **state}
        self.save()
        self.write("standin/compiled", BINARY)
        self.login()

    def login(self, token=TOKEN, name=".qai_hub/client.ini"):
        self.write(name, "[api]\napi_token = %s\napi_url = https://standin\nweb_url = https://standin\nverbose = True\n"
                   % token)

    def save(self):
        self.write("standin/state.json", json.dumps(self.state))

    def look(self):
        self.state = json.loads(self.read("standin/state.json"))
        return self.state

    def change(self, **state):
        self.look().update(state)
        self.save()
        return self

    def client_environment(self):
        return {"STANDIN_HUB": self.path("standin"), "PYTHONPATH": CLIENT, "PYTHONDONTWRITEBYTECODE": "1",
                "PATH": CLIENT + os.pathsep + os.environ["PATH"]}

    def called(self, name):
        return self.look()["log"].count(name)

    def end(self, violations=False):
        there = os.path.exists(self.path("standin/violations"))
        assert there == violations, self.read("standin/violations") if there else "no wrong use was found"
        super().end()

    def uploaded(self):
        self.run("upload", *FAST).succeeds()
        return self

    def compiled(self):
        self.uploaded().run("compile", *FAST).succeeds()
        return self


def case_all():
    c = Case()
    c.run("login-check").succeeds().says("qai-hub 0.56.0", "engineer@example.com", ".qai_hub/client.ini, with a token")
    c.run("upload").succeeds().says("uploaded as m1z", "model  m3z")
    assert c.ids() == list(zip(NAMES, ["m1z", "m2z", "m3z"])), c.ids()
    assert all("sha256=" + sha256(ONNX[n]) in "\n".join(c.model_lines()) for n in NAMES)
    c.run("compile", *FAST).succeeds().says("SUCCESS")
    assert c.job_lines()[:2] == ["device=Snapdragon 8 Elite QRD os=15", "compile_options=" + FP16], c.job_lines()
    assert [c.job(n)[1] for n in NAMES] == ["SUCCESS"] * 3
    c.run("download").succeeds()
    files = {j["name"][:-len("_qnn_context_fp16")]: "job_%s_optimized_bin_%s.bin" % (j["job_id"], j["target"])
             for j in c.look()["jobs"]}
    assert c.binaries() == sorted("%s/%s" % (n, files[n]) for n in NAMES), c.binaries()
    for n in NAMES:
        assert open(c.path("models/fastvlm-qaihub-fp16-context/%s/%s" % (n, files[n])), "rb").read() == BINARY
    c.run("status", "--json").succeeds()
    answer = json.loads(c.out)
    assert [a["status"] for a in answer] == ["SUCCESS"] * 3 and answer[0]["bytes"] == len(BINARY), answer
    assert answer[0]["file"].endswith(files[NAMES[0]]) and os.path.exists(c.path(answer[0]["file"]))
    c.end()


def case_again_nothing_is_done():
    c = Case().compiled()
    c.run("download").succeeds()
    before = c.model_lines(), c.job_lines()
    c.run("upload").succeeds().says("already there as m1z")
    c.run("compile", *FAST).succeeds()
    c.run("download").succeeds().says("is there")
    assert (c.model_lines(), c.job_lines()) == before
    assert [c.called(n) for n in ("upload_model", "submit_compile_job", "download")] == [3, 3, 3]
    c.end()


def case_file_changed():
    c = Case().uploaded()
    c.write("models/fastvlm-onnx-fp32/embed_tokens_fp32.onnx", b"another")
    c.run("upload").succeeds()
    assert [i for n, i in c.ids() if n == NAMES[1]] == ["m2z", "m4z"], c.ids()
    c.run("compile", *FAST).succeeds()
    assert "model_id=m4z" in "\n".join(c.job_lines()) and "model_id=m2z" not in "\n".join(c.job_lines())
    c.end()


def case_only_and_force():
    c = Case()
    c.run("upload", "--only", "embed").succeeds()
    assert [n for n, _ in c.ids()] == [NAMES[1]]
    c.run("upload", "--only", "embed", "--force").succeeds()
    assert len(c.ids()) == 2
    c.run("compile", "--only", "embed", *FAST).succeeds()
    c.run("compile", "--only", "embed", "--force", *FAST).succeeds()
    assert c.called("submit_compile_job") == 2
    c.run("upload", "--only", "head").fails("expected vision, embed or decoder, found head", code=2)
    c.run("compile", *FAST).fails("qaihub-model-ids.txt: has no model id of " + NAMES[0], "fastvlm hub upload")
    c.end()


def case_ledgers_of_the_pipeline():
    """Kept by hand, without a newline at the end, and written by the pipeline's own script."""
    c = Case().uploaded()
    c.write("handoff/qaihub-model-ids.txt", "# by hand\n\n" + "\n".join("%s: m%dz" % (n, i + 1) for i, n in enumerate(NAMES)))
    c.write("handoff/qaihub-fp16-jobs.txt", "device=Snapdragon 8 Elite QRD os=15\ncompile_options=%s\n\n%s: model_id=m1z "
            "job_id=jold status=FAILED (line one\nline two) url=https://x/jobs/jold/\n" % (FP16, NAMES[0]))
    c.run("upload").succeeds().says("m2z, by a line that does not tell of which file")
    assert c.called("upload_model") == 3
    c.run("compile", *FAST).succeeds()
    lines = c.job_lines()
    assert "line two) url=https://x/jobs/jold/" in lines and sum(x.startswith("device=") for x in lines) == 1, lines
    assert [c.job(n)[1] for n in NAMES] == ["SUCCESS"] * 3
    c.write("handoff/qaihub-model-ids.txt", "# x\n%s:not-an-id\n" % NAMES[0])
    c.run("upload").fails("qaihub-model-ids.txt: line 2: expected NAME:MODEL_ID, found")
    c.end()


def case_job_fails():
    c = Case(job_states=["CREATED", "FAILED"], message="No space\x1b[2J: https://x/y?X-Amz-Signature=secret-signature " + TOKEN)
    c.uploaded().run("download").fails("has no job of %s; expected it compiled; fastvlm hub compile" % NAMES[0])
    c.run("compile", *FAST).fails("failed: No space", "https://x/y?...", "***", "https://standin/jobs/j")
    assert c.job(NAMES[0])[1].startswith("FAILED (No space"), c.job(NAMES[0])
    assert TOKEN not in "\n".join(c.job_lines())
    c.run("status").succeeds().says("FAILED: No space")
    c.run("download").fails("is FAILED: No space", "expected SUCCESS")
    c.change(job_states=["SUCCESS"])
    c.run("compile", *FAST).succeeds()  # once more
    assert c.called("submit_compile_job") == 6
    c.end()


def case_killed_between_upload_and_ledger():
    for number in (signal.SIGKILL, signal.SIGINT):
        c = Case(faults=[["upload_model", "after", "hang"]])
        process = c.start("upload", "--only", "vision")
        wait_for(lambda: os.path.exists(c.path("standin/hanging")))
        c.took(*interrupt(process, number))
        assert c.ids() == [] and c.model_lines()[0].startswith("# fastvlm upload " + NAMES[0]), c.model_lines()
        if number == signal.SIGINT:
            c.fails("the same command continues: what has reached the service is found again")
        c.run("upload", "--only", "vision").succeeds().says("found at the service as m1z", "already there as m1z")
        assert c.ids() == [(NAMES[0], "m1z")] and c.called("upload_model") == 1
        c.end()


def case_found_only_if_it_is_ours():
    """After an upload of which we do not know how it ended."""
    now = int(time.time())
    others = [{"name": NAMES[0], "at": now - 86400, "owner": 7, "complete": True, "model_id": "mold"},
              {"name": NAMES[0], "at": now, "owner": 8, "complete": True, "model_id": "mcolleague"},
              {"name": NAMES[0], "at": now, "owner": 7, "complete": False, "model_id": "mhalf"},
              {"name": "another", "at": now, "owner": 7, "complete": True, "model_id": "mname"}]
    c = Case(models=others)
    c.write("handoff/qaihub-model-ids.txt", "# fastvlm upload %s bytes=1 sha256=%s at=%s\n"
            % (NAMES[0], sha256(ONNX[NAMES[0]]), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))))
    c.run("upload", "--only", "vision").succeeds()
    assert c.ids() == [(NAMES[0], "m1z")] and c.called("upload_model") == 1, c.ids()
    c.end()


def case_found_of_another_file():
    """It is written down, and the file of today is uploaded."""
    now = int(time.time())
    c = Case(models=[{"name": NAMES[0], "at": now, "owner": 7, "complete": True, "model_id": "mbefore"}])
    c.write("handoff/qaihub-model-ids.txt", "# fastvlm upload %s bytes=1 sha256=%s at=%s\n"
            % (NAMES[0], sha256(b"before"), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))))
    c.run("upload", "--only", "vision").succeeds()
    assert c.ids() == [(NAMES[0], "mbefore"), (NAMES[0], "m1z")], c.ids()
    c.end()


def case_killed_between_submit_and_ledger():
    c = Case().uploaded().change(faults=[["submit_compile_job", "after", "hang"]])
    process = c.start("compile", "--only", "vision", *FAST)
    wait_for(lambda: os.path.exists(c.path("standin/hanging")))
    c.took(*interrupt(process, signal.SIGKILL))
    c.run("compile", "--only", "vision", *FAST).succeeds().says("found at the service as j")
    assert c.called("submit_compile_job") == 1 and c.job(NAMES[0])[1] == "SUCCESS"
    c.end()


def case_other_options_are_not_taken():
    """A job of this model that somebody else's options have made is not ours."""
    now = int(time.time())
    c = Case().uploaded()
    c.change(jobs=[{"job_id": "jother", "model_id": "m1z", "name": NAMES[0] + "_qnn_context_fp16", "options": "--x",
                    "device": "Snapdragon 8 Elite QRD", "at": now, "states": ["SUCCESS"], "message": "", "target": "mt"}])
    c.write("handoff/qaihub-fp16-jobs.txt", "# fastvlm submit %s model_id=m1z at=%s\n"
            % (NAMES[0], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))))
    c.run("compile", "--only", "vision", *FAST).succeeds()
    assert c.called("submit_compile_job") == 1 and c.job(NAMES[0])[0] != "jother"
    c.end()


def case_job_before_is_not_taken():
    """One that failed a minute ago is no answer to a submission of which nothing is known."""
    c = Case(job_states=["FAILED"], message="no").uploaded()
    c.run("compile", "--only", "vision", *FAST).fails("failed: no")
    first = c.job(NAMES[0])[0]
    c.change(job_states=["SUCCESS"], faults=[["submit_compile_job", "before", "internal", "Could not connect to it"]])
    c.run("compile", "--only", "vision", *FAST).succeeds()
    assert c.called("get_job_summaries") == 1 and c.called("submit_compile_job") == 3 and c.job(NAMES[0])[0] != first
    c.end()


def case_current_directory():
    """What lies there is not run."""
    c = Case()
    c.write("json.py", "raise SystemExit('wrong json')\n")
    c.write("qai_hub.py", "raise SystemExit('wrong package')\n")
    c.run("login-check").succeeds()
    c.end()


def case_lost_answer_is_found():
    """The service has done it, the client says it has not: nothing is done twice."""
    trouble = "Internal API failure.\nCould not connect to Qualcomm AI Hub."
    c = Case(faults=[["upload_model", "after", "internal", trouble], ["submit_compile_job", "after", "internal", trouble]])
    c.run("upload", "--only", "vision", *FAST).succeeds().says("Could not connect", "found at the service as m1z")
    c.run("compile", "--only", "vision", *FAST).succeeds().says("found at the service as j")
    assert c.called("upload_model") == 1 and c.called("submit_compile_job") == 1
    c.end()


def case_trouble_that_passes():
    trouble = "Internal API failure.\nQualcomm AI Hub is unavailable right now."
    c = Case(faults=[[name, "before", "internal", trouble] for name in
                     ("upload_model", "upload_model", "submit_compile_job", "get_job", "get_job", "download")])
    c.run("upload", "--only", "vision", *FAST).succeeds()
    c.run("compile", "--only", "vision", *FAST).succeeds()
    c.run("download", "--only", "vision", *FAST).succeeds()
    assert c.called("upload_model") == 3 and len(c.ids()) == 1
    c.end()


def case_outage_while_waiting():
    """Jobs go on; so does the waiting, until its end."""
    trouble = "Internal API failure.\nCould not connect to Qualcomm AI Hub."
    c = Case(faults=[["get_job", "before", "internal", trouble]] * 5).uploaded()
    c.run("compile", "--only", "vision", "--retries", "0", *FAST).succeeds().says("Could not connect", "waiting on")
    c.change(faults=[["get_job", "before", "user", "Not found."]])
    c.run("compile", "--only", "embed", *FAST).fails("UserError: Not found.")
    c.end()


def case_trouble_that_stays():
    trouble = "Internal API failure.\nQualcomm AI Hub is unavailable right now."
    c = Case(faults=[["upload_model", "before", "internal", trouble]] * 9)
    c.run("upload", "--only", "vision", "--retries", "2", *FAST).fails("InternalError", "unavailable right now")
    assert c.called("upload_model") == 3 and c.ids() == []
    c.run("upload", "--only", "vision", "--retries", "0", *FAST).fails("unavailable right now")
    assert c.called("upload_model") == 4
    c.change(faults=[["upload_model", "before", "user", "Project not found."]])
    c.run("upload", "--only", "vision", *FAST).fails("vision_encoder_fp32.onnx: qai-hub: UserError: Project not found.")
    assert c.called("upload_model") == 5  # not tried again
    c.end()


def case_token():
    c = Case()
    c.login("another")
    for verb in ("login-check", "upload", ):
        c.run(verb).fails("refuses the API token in %s: it is wrong or has expired" % c.path(".qai_hub/client.ini"),
                          "qai-hub configure --api_token TOKEN")
    assert c.called("upload_model") == 1
    c.login()
    c.uploaded()
    c.login("another")
    c.run("compile", *FAST).fails("refuses the API token")
    os.remove(c.path(".qai_hub/client.ini"))
    for verb in ("login-check", "upload", "compile", "status", "download"):
        c.run(verb).fails("client.ini: not found; expected the API token", "qai-hub configure --api_token TOKEN")
    c.run("upload", HOME="").fails("HOME is not set; expected the home directory that holds .qai_hub/client.ini")
    c.write("other.ini", "[api]\nverbose = True\n")
    c.run("upload", QAIHUB_CLIENT_INI=c.path("other.ini")).fails("no api_token in section [api]", "configure")
    c.login(name="other.ini")
    c.run("upload", QAIHUB_CLIENT_INI="~/other.ini").succeeds()
    c.end()


def case_client_missing():
    c = Case()
    c.run("upload", PATH="/usr/bin:/bin").fails("qai-hub: program not found; expected", "pip install qai-hub==0.56.0")
    c.run("upload", "--client", os.path.join(CLIENT, "qai-hub"), PATH="/usr/bin:/bin").succeeds()
    c.run("login-check", PYTHONPATH="").fails("python3: has no package qai_hub; expected the Python that runs", "--python")
    c.end()


def case_offline():
    """What doctor shows: nothing is asked of the service."""
    c = Case()
    c.login("another")
    c.write("site/qai_hub-0.56.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: qai-hub\nVersion: 0.56.0\n")
    site = CLIENT + os.pathsep + c.path("site")
    c.run("login-check", "--offline", PYTHONPATH=site).succeeds().says("python3, qai-hub 0.56.0", "with a token")
    c.run("login-check", "--offline").fails("python3, without qai-hub")
    os.remove(c.path(".qai_hub/client.ini"))
    c.run("login-check", "--offline", PYTHONPATH=site).fails("client.ini, without a token; qai-hub configure")
    c.run("login-check", "--offline", PATH="/usr/bin:/bin").fails("no qai-hub on PATH; pip install qai-hub==0.56.0")
    c.run("login-check", "--offline", "--client", c.path("none")).fails("no qai-hub on PATH")
    assert c.look()["log"] == []
    c.end()


def case_which_python():
    """The one in the first line of qai-hub, in both forms that pip writes."""
    c = Case()
    os.makedirs(c.path("venv/bin with blank"))
    os.symlink(sys.executable, c.path("venv/bin with blank/python3"))
    body = open(os.path.join(CLIENT, "qai-hub")).read().split("\n", 1)[1]
    for i, head in enumerate(["#!%s\n" % sys.executable,
                              "#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n" % c.path("venv/bin with blank/python3"),
                              "#!/usr/bin/env -S python3\n"]):
        c.write("client%d/qai-hub" % i, head + body)
        os.chmod(c.path("client%d/qai-hub" % i), 0o755)
        c.run("login-check", "--client", c.path("client%d/qai-hub" % i), "--json").succeeds()
        expected = [sys.executable, c.path("venv/bin with blank/python3"), "python3"][i]
        assert json.loads(c.out)["python"] == expected, c.out
    c.end()


def case_time_out():
    c = Case(job_states=["OPTIMIZING_MODEL"]).uploaded()
    c.run("compile", "--timeout", "0.01", *FAST).fails("3 of 3 jobs are not finished after", "fastvlm hub status")
    assert c.called("get_job") >= 6
    c.change(jobs=[{**j, "states": ["SUCCESS"]} for j in c.look()["jobs"]])
    c.run("compile", *FAST).succeeds()
    assert c.called("submit_compile_job") == 3
    c.end()


def case_no_wait_and_interrupt():
    c = Case(job_states=["OPTIMIZING_MODEL"]).uploaded()
    c.run("compile", "--no-wait", *FAST).succeeds().says("CREATED")
    process = c.start("compile", "--wait", "30")
    wait_for(lambda: c.called("get_job") >= 3)
    start = time.time()
    c.took(*interrupt(process)).fails("cancelled", "fastvlm hub status looks at them")
    assert time.time() - start < 5
    c.run("status").succeeds().says("OPTIMIZING_MODEL")
    c.run("download").fails("is OPTIMIZING_MODEL; expected SUCCESS; fastvlm hub status asks")
    c.end()


def case_interrupted_download():
    c = Case().compiled().change(faults=[["download", "after", "hang"]])
    process = c.start("download")
    wait_for(lambda: os.path.exists(c.path("standin/hanging")))
    c.took(*interrupt(process)).fails("the same command continues with what is missing")
    assert c.binaries() == [], c.binaries()
    c.change(faults=[["download", "after", "hang"]])
    os.remove(c.path("standin/hanging"))
    process = c.start("download")
    wait_for(lambda: os.path.exists(c.path("standin/hanging")))
    c.took(*interrupt(process, signal.SIGKILL))
    c.run("download").succeeds()  # what the killed one left is gone
    assert len(c.binaries()) == 3, c.binaries()
    c.end()


def case_download_that_differs():
    c = Case().compiled()
    c.run("download", "--only", "vision").succeeds()
    (file,) = c.binaries()
    place = "models/fastvlm-qaihub-fp16-context/" + file
    c.write(place, b"\x02 changed")
    c.run("download", "--only", "vision").fails(place + ": there is such a file already, and it differs", "--force")
    assert open(c.path(place), "rb").read() == b"\x02 changed"
    c.run("download", "--only", "vision", "--force").succeeds()
    assert open(c.path(place), "rb").read() == BINARY
    os.remove(c.path(place))
    c.run("download", "--only", "vision").succeeds()
    assert c.called("download") == 4
    c.end()


def case_download_that_is_none():
    c = Case().compiled()
    c.write("standin/compiled", b"")
    c.run("download", *FAST).fails("what was downloaded is empty")
    c.write("standin/compiled", b"<Error><Code>AccessDenied</Code></Error>")
    c.run("download", *FAST).fails("what was downloaded is text (\"<Error><Code>AccessDenied")
    assert c.binaries() == []
    c.end()


def case_download_that_is_cut():
    """By less than the client notices: the size is the service's, or it comes again."""
    c = Case(cuts=[1, 1]).compiled()
    c.run("download", "--only", "vision", *FAST).succeeds().says("%d of %d bytes have come" % (len(BINARY) - 1, len(BINARY)))
    (file,) = c.binaries()
    assert os.path.getsize(c.path("models/fastvlm-qaihub-fp16-context/" + file)) == len(BINARY)
    c.change(cuts=[1] * 9)
    c.run("download", "--only", "embed", *FAST).fails("bytes have come")
    assert c.binaries() == [file]
    c.end()


def case_context_reader():
    """With Qualcomm's libraries (their stand-in), the content is read."""
    fake = os.environ.get("FV_FAKE_QNN")
    if not fake:  # ctest names it
        return
    c = Case().compiled()
    c.run("download", "--only", "vision", "--qnn", fake).fails("bin: not kept: not a QNN context binary", "--force keeps it")
    c.run("download", "--only", "vision", "--qnn", fake, "--force").succeeds().says("warning: ", "its content is not checked")
    os.remove(c.path("models/fastvlm-qaihub-fp16-context/" + c.binaries()[0]))
    c.run("download", "--only", "vision").succeeds().says("its content is not checked: no QNN libraries")
    for soc, good in ((57, False), (69, True)):  # as tests/npu/fake_qnn.c writes them
        c.write("standin/compiled", b"FAKEQNN 1\nsoc %d\ngraph g\nin x 562 0 0 1 4\nout y 562 0 0 1 4\nend\n" % soc)
        c.run("download", "--only", "vision", "--qnn", fake, "--force")
        c.succeeds() if good else c.fails("is for SoC model 57; expected 69 (SM8750)")
    c.end()


def case_onnx_files():
    c = Case()
    os.remove(c.path("models/fastvlm-onnx-fp32/embed_tokens_fp32.onnx"))
    c.run("upload").fails("embed_tokens_fp32.onnx: not found; expected the ONNX file", "fastvlm export onnx")
    assert c.ids() == [(NAMES[0], "m1z")]
    c.write("models/fastvlm-onnx-fp32/embed_tokens_fp32.onnx", b"")
    c.run("upload").fails("embed_tokens_fp32.onnx: is empty")
    c.write("models/fastvlm-onnx-fp32/embed_tokens_fp32.onnx", b"x")
    c.write("models/fastvlm-onnx-fp32/embed_tokens_fp32.onnx_data", b"x")
    c.run("upload").fails("keeps its weights in a second file")
    os.remove(c.path("models/fastvlm-onnx-fp32/embed_tokens_fp32.onnx_data"))
    os.rename(c.path("models/fastvlm-onnx-fp32"), c.path("~odd"))
    c.run("upload", "~odd").succeeds()
    c.end()


def case_client_that_ends_badly():
    """It has said the id, so the id counts."""
    c = Case()
    script = open(os.path.join(CLIENT, "qai-hub")).read()
    c.write("client/qai-hub", script + "sys.stdout.flush()\nsys.exit(3)\n")
    os.chmod(c.path("client/qai-hub"), 0o755)
    c.run("upload", "--only", "vision", "--client", c.path("client/qai-hub")).succeeds()
    assert c.ids() == [(NAMES[0], "m1z")]
    c.end()


def case_silent_client():
    c = Case(faults=[["upload_model", "before", "silent"]])
    c.run("upload", *FAST).fails("ended with exit code 0 but names no model")
    c.run("upload", *FAST).succeeds()
    c.end()


def case_one_at_a_time():
    c = Case(faults=[["upload_model", "before", "hang"]])
    process = c.start("upload")
    wait_for(lambda: os.path.exists(c.path("standin/hanging")))
    c.run("upload").fails("handoff: another process is working with the ledgers", "status --offline")
    c.run("status", "--offline").succeeds().says("not uploaded")
    c.took(*interrupt(process))
    c.end()


def case_dry_run():
    c = Case()
    os.remove(c.path(".qai_hub/client.ini"))
    for verb in ("login-check", "upload", "compile", "download"):
        c.run(verb, "--dry-run", PATH="/usr/bin:/bin").succeeds()
        assert c.out.startswith("$ "), c.out
    assert not os.path.exists(c.path("handoff")) and c.look()["log"] == []
    c.login()
    c.run("upload", "--dry-run").succeeds()
    commands = [line[2:] for line in c.out.splitlines() if line.startswith("$ ")]
    words = [shlex.split(x) for x in commands]
    assert [w[1:] for w in words] == [["upload-model", "--model", "./models/fastvlm-onnx-fp32/%s.onnx" % n[8:], "--name", n]
                                      for n in NAMES] and words[0][0].endswith("qai-hub"), words
    c.uploaded().run("compile", "--dry-run", "--only", "decoder").succeeds()
    blocks = re.split(r"(?m)^\$ ", c.out)[1:]
    words = shlex.split(blocks[0])
    assert words[1] == "-c" and words[3:] == ["m3z", NAMES[2] + "_qnn_context_fp16", "Snapdragon 8 Elite QRD", "15", FP16], words
    compile(words[2], "program", "exec")
    done = subprocess.run(["bash", "-c", blocks[0]], cwd=c.dir, capture_output=True, text=True,
                          env=c.environment(PYTHONIOENCODING="utf-8"))  # a person may paste it
    assert json.loads(done.stdout)["job_id"].startswith("j"), done.stderr
    c.end()


def case_devices_and_options():
    c = Case().uploaded()
    c.run("compile", "--soc", "sm8650", "--only", "vision", "--qairt-version", "2.42", *FAST).succeeds()
    job = c.look()["jobs"][0]
    assert job["device"] == "Samsung Galaxy S24" and job["options"] == FP16 + " --qairt_version 2.42", job
    assert "device=Samsung Galaxy S24 os=" in c.job_lines(), c.job_lines()
    c.run("compile", "--only", "vision", *FAST).succeeds()  # another device: another job
    assert c.called("submit_compile_job") == 2
    c.run("compile", "--soc", "sm8650", "--device-os", "15", "--only", "vision", *FAST).succeeds()  # only the name differs
    assert c.called("submit_compile_job") == 3 and c.look()["jobs"][2]["options"] == c.look()["jobs"][1]["options"]
    c.run("compile", "--soc", "sm1").fails('soc is "sm1"; expected one of SM8550', code=2)
    c.run("compile", "--device", "a\nb").fails("device: holds a control character", code=2)
    c.end()


def case_standin_refuses():
    """The stand-in itself: wrong use is found."""
    for words in (["upload-model", "--model", "x.onnx"], ["upload-model", "--name", "n", "--model", "x.onnx"],
                  ["submit-compile-job", "--model", "m1z"], ["upload-model", "--model", "models/fastvlm-onnx-fp32/"
                                                             "embed_tokens_fp32.onnx", "--name", NAMES[0]]):
        c = Case()
        done = subprocess.run([os.path.join(CLIENT, "qai-hub"), *words], cwd=c.dir, capture_output=True, text=True,
                              env=c.environment(PYTHONIOENCODING="utf-8"))
        assert done.returncode == 1 and "wrong use" in done.stderr, done.stderr
        c.end(violations=True)
    head = "import qai_hub as hub\nc = hub.Client()\n"
    for program, env in (("hub.Device('Snapdragon 8 Elite QRD')", {}), ("c.get_job_summaries(0, 50, type='compile')", {}),
                         (head + "pass", {"PYTHONIOENCODING": "ascii"}), (head + "pass", {"X": TOKEN}),
                         ("m = c.upload_model('models/fastvlm-onnx-fp32/vision_encoder_fp32.onnx', '%s')\n"
                          "c.submit_compile_job(m, hub.Device('Snapdragon 8 Elite QRD', '15'), name='x', options='%s')"
                          % (NAMES[0], FP16), {}),
                         ("m = c.upload_model('models/fastvlm-onnx-fp32/vision_encoder_fp32.onnx', '%s')\n"
                          "c.submit_compile_job(m, hub.Device('Snapdragon 8 Elite QRD', '15'), name='%s_qnn_context_fp16', "
                          "options='--target_runtime tflite')" % (NAMES[0], NAMES[0]), {})):
        c = Case()
        done = subprocess.run([sys.executable, "-c", head + program], cwd=c.dir, capture_output=True, text=True,
                              env=c.environment(**{"PYTHONIOENCODING": "utf-8", **env}))
        assert done.returncode == 1 and "wrong use" in done.stderr, (program, done.stderr)
        c.end(violations=True)


if __name__ == "__main__":
    sys.exit(run_cases([v for k, v in sorted(globals().items()) if k.startswith("case_")], sys.argv[1:]))
