"""`fastvlm hub` with the real client qai-hub 0.56.0 against the stand-in of the service. CLIENT names the
program qai-hub; tools/test-hub.sh installs it."""
import http.client
import json
import os
import re
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from hub_test import FP16, NAMES, ONNX, STANDINS, Place, interrupt, run_cases, wait_for  # noqa: E402

sys.path.insert(0, STANDINS)
from aihub_service import FAILED, VERSION, Service, encode  # noqa: E402

CLIENT = os.path.abspath(os.environ["CLIENT"])
FAST = ["--wait", "0.05"]


class Case(Place):
    def __init__(self):
        self.service = Service()
        super().__init__(self.service.token)
        os.mkdir(self.path(".qai_hub"))
        self.service.write_ini(self.path(".qai_hub/client.ini"))

    def client_environment(self):
        return {"PYTHONPATH": "", "PATH": os.path.dirname(CLIENT) + os.pathsep + os.environ["PATH"]}

    def requests(self, part):
        return sum(part in line for line in self.service.log)

    def end(self):
        self.service.stop()
        assert not self.service.violations, self.service.violations
        super().end()


def case_all():
    c = Case()
    c.run("login-check").succeeds().says("qai-hub " + VERSION, "engineer@example.com", "with a token")
    c.run("login-check", "--offline").succeeds().says("qai-hub " + VERSION, "with a token")
    c.run("upload").succeeds()
    ids = dict(c.ids())
    assert list(ids) == NAMES and all(c.service.files[ids[n]] == ONNX[n] for n in NAMES), c.ids()
    c.run("compile", *FAST).succeeds()
    jobs = {n: c.job(n) for n in NAMES}
    assert all(status == "SUCCESS" for _, status in jobs.values()), jobs
    assert all(j["options"] == FP16 for j in c.service.jobs.values())
    assert re.search(r"status=CREATED url=http://\S+/jobs/%s/" % jobs[NAMES[0]][0], "\n".join(c.job_lines()))
    c.run("download").succeeds()
    target = {j["compile_job_id"]: j["target_model"]["model_id"] for j in c.service.jobs.values()}
    for n in NAMES:
        file = "job_%s_optimized_bin_%s.bin" % (jobs[n][0], target[jobs[n][0]])
        with open(c.path("models/fastvlm-qaihub-fp16-context/%s/%s" % (n, file)), "rb") as binary:
            assert binary.read() == c.service.result
    assert len(c.binaries()) == 3, c.binaries()
    c.run("status", "--json").succeeds()
    assert [a["status"] for a in json.loads(c.out)] == ["SUCCESS"] * 3
    for verb in ("upload", "compile", "download"):
        before = len(c.service.log)
        c.run(verb).succeeds()
        assert len(c.service.log) == before, c.service.log[before:]
    c.end()


def case_quiet_configuration():
    """verbose = False: the client's program prints no progress, ours need none."""
    c = Case()
    c.service.write_ini(c.path(".qai_hub/client.ini"), verbose=False)
    for verb in ("upload", "compile", "download"):
        c.run(verb, "--only", "vision", *FAST).succeeds()
    assert len(c.binaries()) == 1
    c.end()


def case_plain_locale():
    c = Case()
    for verb in ("upload", "compile", "download"):
        c.run(verb, "--only", "vision", *FAST, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").succeeds()
    c.end()


def case_job_fails():
    c = Case()
    c.service.fail_reason = "Failed to compile:\n\tOp \"Gelu\" is not supported. See https://x/y?sig=secret-signature."
    c.run("upload", "--only", "vision").succeeds()
    c.run("compile", "--only", "vision", *FAST).fails("failed: Failed to compile: Op \"Gelu\" is not supported.", "/jobs/j")
    assert c.job(NAMES[0])[1].startswith("FAILED (Failed to compile: Op \"Gelu\""), c.job(NAMES[0])
    c.run("download", "--only", "vision").fails("is FAILED", "expected SUCCESS")
    c.service.fail_reason = None
    c.run("compile", "--only", "vision", *FAST).succeeds()
    assert len(c.service.jobs) == 2
    c.end()


def case_expired_token():
    c = Case()
    c.run("upload", "--only", "vision").succeeds()
    c.service.token, old = "another-token-that-nobody-may-see", c.service.token
    for verb, only in (("login-check", []), ("upload", ["--only", "embed"]), ("compile", ["--only", "vision"])):
        c.run(verb, *only).fails("refuses the API token in %s: it is wrong or has expired" % c.path(".qai_hub/client.ini"),
                                 "qai-hub configure --api_token TOKEN")
    c.service.token = old
    c.run("upload", "--only", "embed").succeeds()
    assert len(c.ids()) == 2
    with open(c.path(".qai_hub/client.ini"), "w") as ini:
        ini.write("[api]\napi_token = x\n")
    c.run("login-check").fails("client.ini cannot be used", "configure")
    c.end()


def case_service_recovers():
    """Answers of 5xx and 429 that pass, which the client itself waits out."""
    c = Case()
    c.service.faults = [("POST /api/v1/models/", 503, 2), ("multipart_upload", 502, 1), ("store PUT", 500, 2),
                        ("POST /api/v1/jobs/", 429, 1), ("GET /api/v1/jobs/", 504, 1), ("store GET", 503, 1)]
    for verb in ("upload", "compile", "download"):
        c.run(verb, "--only", "vision", *FAST).succeeds()
    assert c.service.faults == [] and len(c.binaries()) == 1 and len(c.service.jobs) == 1
    c.end()


def case_service_recovers_late():
    """Later than the client's own patience: ours."""
    c = Case()
    c.run("upload", "--only", "vision").succeeds()
    c.service.faults = [("POST /api/v1/jobs/", 503, 8)]  # it gives up after 7
    c.run("compile", "--only", "vision", *FAST).succeeds().says("unavailable right now")
    assert c.requests("job_summaries") == 1 and len(c.service.jobs) == 1  # asked before trying again
    c.end()


def case_connection_cut():
    """In the middle of an upload, of a download, and before an answer."""
    c = Case()
    c.service.cut_parts = [100_000, 0]
    c.run("upload", "--only", "vision").succeeds()
    assert c.service.files[c.ids()[0][1]] == ONNX[NAMES[0]] and c.service.cut_parts == []
    c.service.faults = [("GET /api/v1/jobs/", 0, 2)]
    c.run("compile", "--only", "vision", *FAST).succeeds()
    c.service.lose_answers, c.service.short_files = ["store GET"], [1]
    c.run("download", "--only", "vision", *FAST).succeeds()
    (file,) = c.binaries()
    with open(c.path("models/fastvlm-qaihub-fp16-context/" + file), "rb") as binary:
        assert binary.read() == c.service.result
    c.end()


def case_killed_between_upload_and_ledger():
    c = Case()
    c.service.slow = 0.5
    process = c.start("upload", "--only", "vision")
    wait_for(lambda: any(m["file_upload_complete"] for m in c.service.models.values()))
    c.took(*interrupt(process, signal.SIGKILL))
    c.service.slow = 0
    assert c.ids() == [], c.ids()
    c.run("upload", "--only", "vision").succeeds().says("found at the service as m")
    assert len(c.service.models) == 1 and len(c.ids()) == 1
    c.end()


def case_killed_in_upload():
    """What is there is half a model: it is not taken."""
    c = Case()
    c.service.slow = 0.5
    process = c.start("upload", "--only", "vision")
    wait_for(lambda: c.requests("PUT ") > 0)
    c.took(*interrupt(process, signal.SIGKILL))
    c.service.slow = 0
    c.run("upload", "--only", "vision").succeeds()
    assert [c.service.models[i]["file_upload_complete"] for _, i in c.ids()] == [1], c.ids()
    c.end()


def case_killed_between_submit_and_ledger():
    c = Case()
    c.run("upload", "--only", "vision").succeeds()
    c.service.slow = 0.5
    process = c.start("compile", "--only", "vision", *FAST)
    wait_for(lambda: c.service.jobs)
    c.took(*interrupt(process, signal.SIGKILL))
    c.service.slow = 0
    c.run("compile", "--only", "vision", *FAST).succeeds().says("found at the service as j")
    assert len(c.service.jobs) == 1 and c.job(NAMES[0])[1] == "SUCCESS"
    c.end()


def case_time_out_and_interrupt():
    c = Case()
    c.service.job_states = [50] * 1000
    c.run("upload", "--only", "vision").succeeds()
    c.run("compile", "--only", "vision", "--timeout", "0.02", *FAST).fails("1 of 1 jobs are not finished", "hub status")
    process = c.start("compile", "--only", "vision", "--wait", "30")
    looks = c.requests("GET /api/v1/jobs/")
    wait_for(lambda: c.requests("GET /api/v1/jobs/") >= looks + 2)
    start = time.time()
    c.took(*interrupt(process)).fails("jobs continue at the service")
    assert time.time() - start < 10
    for job in c.service.jobs.values():
        job["left"] = []
    c.run("compile", "--only", "vision", *FAST).succeeds()
    assert len(c.service.jobs) == 1
    c.end()


def case_name_of_the_service():
    """What the service calls the file is not a path for us."""
    c = Case()
    for verb in ("upload", "compile"):
        c.run(verb, "--only", "vision", *FAST).succeeds()
    c.service.result_name = "../../../../x.y.bin"
    c.run("download", "--only", "vision").succeeds()
    assert c.binaries()[0].startswith(NAMES[0] + "/job_j") and len(c.binaries()) == 1, c.binaries()
    c.service.result_name = "model.onnx.zip"
    c.run("download", "--only", "vision", "--force").fails("expected a context binary, the service gave")
    c.end()


def case_no_such_device():
    c = Case()
    c.run("upload", "--only", "vision").succeeds()
    c.run("compile", "--only", "vision", "--device", "Toaster").fails("UserError: Device(name='Toaster'", "is not available")
    c.end()


def case_standin_refuses():
    """The stand-in itself: what the client would never send."""
    good = {"Authorization": None, "Content-Type": "application/x-protobuf", "User-Agent": "qai_hub/" + VERSION,
            "Client-Version": VERSION, "Client-Mode": "library", "Python-Version": "3.11.2", "OS-Type": "Linux",
            "OS-Version": "6.1"}
    service = Service()
    good["Authorization"] = "token " + service.token
    whole = service.add_model(NAMES[0], complete=True)
    half = service.add_model(NAMES[0])
    device = {"name": "Snapdragon 8 Elite QRD", "os": "15", "attributes": ["chipset:qualcomm-snapdragon-8-elite",
              "framework:qnn", "framework:onnx", "os:android"]}
    job = {"model": {"model_id": whole["model_id"]}, "name": NAMES[0] + "_qnn_context_fp16", "options": FP16,
           "devices": {"devices": [device]}}

    def ask(method, path, body=b"", store=False, **headers):
        port = (service.store if store else service.server).server_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        given = {} if store else dict(good)
        given.update({k.replace("_", "-"): v for k, v in headers.items()})
        connection.request(method, path, body or None, {k: v for k, v in given.items() if v is not None})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def submit(**changes):
        return ask("POST", "/api/v1/jobs/?seed_target_model=true", encode("Job", {"compile_job": {**job, **changes}}))

    def upload(id, more=""):
        return "/api/v1/models/%s/multipart_upload/%s" % (id, more)

    transfer = "?use_acceleration=true&supports_s3_credentials=true"
    assert ask("GET", "/api/v1/users/auth/user/") == 200 and submit() == 201 and not service.violations
    assert ask("GET", "/api/v1/users/auth/user/", Authorization="token x") == 401 and not service.violations
    model = encode("Model", {"name": NAMES[0], "model_type": 6, "is_directory": 0})
    wrong = [
        lambda: ask("GET", "/api/v1/users/auth/user"),
        lambda: ask("GET", "/api/v1/users/auth/user/?x=1"),
        lambda: ask("GET", "/api/v2/users/auth/user/"),
        lambda: ask("GET", "/api/v1/secrets/"),
        lambda: ask("DELETE", "/api/v1/models/%s/" % whole["model_id"]),
        lambda: ask("GET", "/api/v1/users/auth/user/", User_Agent="curl"),
        lambda: ask("GET", "/api/v1/users/auth/user/", Client_Mode="x"),
        lambda: ask("GET", "/api/v1/users/auth/user/", Content_Type="application/json"),
        lambda: ask("GET", "/api/v1/users/auth/user/", Authorization=None),
        lambda: ask("POST", "/api/v1/models/", model + b"\x52\x01x"),
        lambda: ask("POST", "/api/v1/models/", model[:-1]),
        lambda: ask("POST", "/api/v1/models/", encode("Model", {"name": NAMES[0], "model_type": 11, "is_directory": 0})),
        lambda: ask("GET", "/api/v1/models/?limit=x"),
        lambda: ask("GET", "/api/v1/job_summaries/?limit=5&type=profile"),
        lambda: ask("GET", upload(half["model_id"], transfer + "&file_size=0")),
        lambda: ask("GET", upload(half["model_id"], "?file_size=5")),
        lambda: ask("GET", upload(whole["model_id"], transfer + "&file_size=5")),
        lambda: ask("POST", upload(half["model_id"]), encode("Complete", {"upload_id": "u", "etags": []})),
        lambda: ask("GET", "/api/v1/models/%s/download/%s" % (half["model_id"], transfer)),
        lambda: submit(model={"model_id": half["model_id"]}),
        lambda: submit(model={"model_id": "mnone"}),
        lambda: submit(devices={"devices": []}),
        lambda: submit(devices={"devices": [{"name": "Toaster"}]}),
        lambda: submit(name="x"),
        lambda: submit(options="--target_runtime tflite"),
        lambda: submit(options="--quantize_full_type float16"),
        lambda: submit(options=FP16 + " --surprise"),
        lambda: ask("POST", "/api/v1/jobs/", encode("Job", {"compile_job": job})),
        lambda: ask("PUT", "/%s/0?X-Amz-Signature=secret-signature" % half["model_id"], b"x", store=True),
        lambda: ask("GET", "/%s/file" % whole["model_id"], store=True),
    ]
    for i, request in enumerate(wrong):
        assert request() == 400 and len(service.violations) == i + 1, (i, service.violations)
    assert ask("GET", upload(half["model_id"], transfer + "&file_size=5")) == 200
    part = "/%s/0?X-Amz-Signature=secret-signature" % half["model_id"]
    for body, headers in ((b"1234", {}), (b"12345", {"Authorization": "token x"}), (b"12345", {"Content_Type": "text/plain"})):
        n = len(service.violations)
        assert ask("PUT", part, body, store=True, **headers) == 400 and len(service.violations) == n + 1
    n = len(service.violations)
    assert ask("PUT", part, b"12345", store=True) == 200 and len(service.violations) == n
    etag = '"etag-%s-0"' % half["model_id"]
    for etags, code in ((["x"], 400), ([etag], 200)):
        body = encode("Complete", {"upload_id": "u-" + half["model_id"], "etags": etags})
        assert ask("POST", upload(half["model_id"]), body) == code
    service.stop()


if __name__ == "__main__":
    sys.exit(run_cases([v for k, v in sorted(globals().items()) if k.startswith("case_")], sys.argv[1:]))
