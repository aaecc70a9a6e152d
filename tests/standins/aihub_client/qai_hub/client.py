"""A stand-in for the Python package qai_hub 0.56.0 and its program qai-hub (the file beside this
directory), for where the real ones cannot be installed.

It checks, strictly: the words of `qai-hub`; the names and arguments of every call; that nobody puts the
token into an argument; an environment in which the real client can print its characters; files that
exist, devices, options and job names of the reference pipeline. Wrong use ends with an exception that
says so, and a line in `violations`, which fails the test. It prints what the real client 0.56.0 was
seen to print, and raises what it was seen to raise.

It cannot prove: that the real package has these names and takes these arguments. tools/test-hub.sh runs
the real one, against a stand-in of the service.

$STANDIN_HUB is its directory: state.json (models, jobs, token, faults, cuts: bytes that do not come of a
download), violations, compiled. A fault
is [call, "before" or "after" the change, what, text]; what is "user" or "internal" (an exception with
text), "token", "hang" (makes the file `hanging` and waits), "silent" (nothing is printed)."""
import configparser
import contextlib
import datetime
import enum
import fcntl
import json
import os
import re
import sys
import textwrap
import time
import types

from . import api_utils

__version__ = "0.56.0"
PLACE = os.environ["STANDIN_HUB"]
OPTIONS = r"--target_runtime qnn_context_binary --quantize_full_type float16 --truncate_64bit_io( --qairt_version 2\.42)?"
DEVICES = {("Snapdragon 8 Elite QRD", "15"), ("Samsung Galaxy S24", ""), ("Samsung Galaxy S24", "15")}


class Error(Exception):
    pass


class UserError(Error):
    pass


class InternalError(Error):
    pass


def box(text):
    lines = textwrap.TextWrapper(width=66).wrap(textwrap.dedent(text).strip())
    return "\n┌" + "─" * 68 + "┐\n" + "\n".join("| " + line.ljust(66) + " |" for line in lines) + "\n└" + "─" * 68 + "┘"


def violate(text):
    with open(os.path.join(PLACE, "violations"), "a") as out:
        out.write(text + "\n")
    raise UserError("stand-in: wrong use: " + text)


def expect(good, text):
    if not good:
        violate(text)


@contextlib.contextmanager
def state():
    path = os.path.join(PLACE, "state.json")
    with open(os.path.join(PLACE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path) as file:
            s = json.load(file)
        try:
            yield s
        finally:
            with open(path + ".new", "w") as file:
                json.dump(s, file)
            os.replace(path + ".new", path)


def fault(call, when):
    with state() as s:
        s["log"].append(call) if when == "before" else None
        found = next((f for f in s["faults"] if f[:2] == [call, when]), None)
        if found:
            s["faults"].remove(found)
    if not found:
        return
    if found[2] == "hang":
        open(os.path.join(PLACE, "hanging"), "w").close()
        time.sleep(120)
    if found[2] == "silent":
        sys.exit(0)
    raise {"user": UserError, "internal": InternalError}[found[2]](found[3])


def look_at_environment():
    expect(os.environ.get("PYTHONIOENCODING") == "utf-8", "PYTHONIOENCODING is not utf-8")
    with state() as s:
        expect(not any(s["token"] in word for word in sys.argv), "the token is an argument")
        expect(s["token"] not in "".join(os.environ.values()), "the token is in the environment")


def call(name):
    """Around every public call: what it logs, its faults."""
    def decorate(function):
        def run(*args, **more):
            fault(name, "before")
            result = function(*args, **more)
            fault(name, "after")
            return result
        return run
    return decorate


class JobType(enum.Enum):
    COMPILE = 3


class Device:
    def __init__(self, name="", os="", attributes=()):
        expect((name, os) in DEVICES and not attributes, "device %s, %s" % (name, os))
        self.name, self.os = name, os


class Model:
    def __init__(self, record):
        self.model_id, self.name = record["model_id"], record["name"]

    def __repr__(self):
        return ("Model\n-----\nmodel_id    : %s\nurl         : https://standin/models/%s/\nname        : %s\n"
                "model_type  : ONNX\nproducer_id : None\ndate        : 2026-01-01 00:00:00\n"
                % (self.model_id, self.model_id, self.name))

    @call("download")
    def download(self, filename):
        expect(os.path.isdir(os.path.dirname(filename)), "the directory of %s does not exist" % filename)
        temporary = os.path.abspath(os.environ.get("TMPDIR", "/tmp"))  # large files do not fit into every /tmp
        expect(os.path.dirname(temporary) == os.path.dirname(os.path.abspath(filename)), "TMPDIR is " + temporary)
        expect(filename.endswith(".bin"), "%s does not end with .bin" % filename)
        with open(os.path.join(PLACE, "compiled"), "rb") as file:
            data = file.read()
        with state() as s:
            cut = s["cuts"].pop(0) if s["cuts"] else 0
        api_utils.get_progress_bar(os.path.basename(filename), len(data), 1024, True)
        with open(filename, "wb") as file:
            file.write(data[:len(data) - cut])
        print("Downloaded model to " + filename)
        return filename


class Job:
    def __init__(self, record):
        self.record = record
        self.job_id, self.name, self.options = record["job_id"], record["name"], record["options"]
        self.url = "https://standin/jobs/%s/" % self.job_id
        self.model = types.SimpleNamespace(model_id=record["model_id"])
        self.device = types.SimpleNamespace(name=record["device"])

    def get_status(self):
        code = self.record["states"][0]
        message = self.record["message"] if code == "FAILED" else ""
        return types.SimpleNamespace(code=code, message=message, success=code == "SUCCESS")

    def get_target_model(self):
        return Model({"model_id": self.record["target"], "name": self.name})


def new_id(s, letter):
    s["count"] += 1
    return "%s%dz" % (letter, s["count"])


class Client:
    def __init__(self):
        look_at_environment()

    @property
    def config(self):
        path = os.path.expanduser(os.environ.get("QAIHUB_CLIENT_INI", "~/.qai_hub/client.ini"))
        if not os.path.exists(path):
            raise UserError("Failed to load client configuration file.\n" + box(path + " not found."))
        ini = configparser.ConfigParser()
        ini.read([path])
        with state() as s:
            if ini["api"]["api_token"] != s["token"]:
                raise UserError("Failed to authenticate.\n" + box("Failure to authenticate is likely caused by a bad or "
                                "expired API token. Please go to your Account page to view your current token: "
                                "https://standin/account/."))
        return ini

    @call("upload_model")
    def upload_model(self, model, name):
        self.config
        expect(re.fullmatch(r"fastvlm_(vision_encoder|embed_tokens|decoder_fixed_kv)_fp32", name), "name %s" % name)
        expect(os.path.basename(model) == name[len("fastvlm_"):] + ".onnx", "%s as %s" % (model, name))
        with state() as s:
            record = {"model_id": new_id(s, "m"), "name": name, "at": int(time.time()), "owner": 7, "complete": True,
                      "bytes": os.path.getsize(model)}
            s["models"].append(record)
        return Model(record)

    @call("get_model")
    def get_model(self, model_id):
        self.config
        with state() as s:
            for record in s["models"]:
                if record["model_id"] == model_id:
                    return Model(record)
        raise UserError("Model ID '%s' could not be found. It may not exist or you may not have permission to view it."
                        % model_id)

    @call("submit_compile_job")
    def submit_compile_job(self, model, device, *, name, options):
        self.config
        expect(isinstance(model, Model) and isinstance(device, Device), "a model and a device")
        expect(name == model.name + "_qnn_context_fp16", "job name %s" % name)
        expect(re.fullmatch(OPTIONS, options), "options %s" % options)
        with state() as s:
            record = {"job_id": new_id(s, "j"), "model_id": model.model_id, "name": name, "options": options,
                      "device": device.name, "at": int(time.time()), "states": list(s["job_states"]),
                      "message": s["message"], "target": new_id(s, "m")}
            s["jobs"].append(record)
        print("Scheduled compile job (%s) successfully. To see the status and results:\n    https://standin/jobs/%s/\n"
              % (record["job_id"], record["job_id"]))
        return Job(record)

    @call("get_job")
    def get_job(self, job_id):
        self.config
        with state() as s:
            for record in s["jobs"]:
                if record["job_id"] == job_id:
                    found = Job(json.loads(json.dumps(record)))
                    if len(record["states"]) > 1:
                        record["states"].pop(0)
                    return found
        raise UserError("Not found.")

    @call("get_job_summaries")
    def get_job_summaries(self, offset, limit, *, type):
        self.config
        expect(type is JobType.COMPILE, "type %s" % type)
        with state() as s:
            jobs = sorted(s["jobs"], key=lambda j: -j["at"])[offset:offset + limit]
        return [types.SimpleNamespace(job_id=j["job_id"], name=j["name"], date=datetime.datetime.fromtimestamp(j["at"]))
                for j in jobs]


@call("get_auth_user")
def get_auth_user(config):
    return types.SimpleNamespace(id=7, email="engineer@example.com")


@call("get_model_list")
def get_model_list(config, *, offset, limit):
    with state() as s:
        models = sorted(s["models"], key=lambda m: -m["at"])[offset:offset + limit]
    return types.SimpleNamespace(models=[types.SimpleNamespace(
        model_id=m["model_id"], name=m["name"], creation_time=types.SimpleNamespace(seconds=m["at"]), producer_id="",
        file_upload_complete=m["complete"], owner=types.SimpleNamespace(id=m["owner"])) for m in models])


def main(words):
    """The program qai-hub: `upload-model` only."""
    look_at_environment()
    expect(len(words) == 5 and words[0] == "upload-model" and words[1] == "--model" and words[3] == "--name",
           "words %s" % words)
    if not os.path.exists(words[2]):
        raise ValueError("File %s does not exist." % words[2])
    print("Uploading " + os.path.basename(words[2]))
    sys.stderr.write("\r  0%|          | 0.00/1.00M [00:00<?, ?B/s]\r100%|██████████| 1.00M/1.00M\n")
    print(repr(Client().upload_model(words[2], words[4])))
