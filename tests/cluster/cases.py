#!/usr/bin/env python3
"""examples/cluster against one machine: every recipe runs on 48 images, one of them damaged, a worker
is killed in the middle, and the answers must be those of Model.ask. tools/test-cluster.sh installs
what this needs. Slurm is a cluster of one node that this starts, without touching the system's.

    tests/cluster/cases.py [CASE...]     ray spark slurm kubernetes"""
import contextlib
import glob
import json
import os
import pathlib
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import fastvlm

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples" / "cluster"
N_IMAGES = 48
# Imported by every Python that a recipe starts (PYTHONPATH): a worker's 2nd batch, of all workers the
# first time only, ends it as the kernel's out-of-memory killer would.
KILLER = '''
import os, signal
import fastvlm.ray as recipes
answers, n = recipes.Captioner.answers, 0

def killed(self, images, prompts):
    global n
    n += 1
    if n == 2:
        try:
            os.close(os.open(os.environ["KILLED"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return answers(self, images, prompts)

recipes.Captioner.answers = killed
'''


def images(folder):
    """{name: answer}; the examples' images again and again, and one that is none."""
    sources = sorted((ROOT / "examples" / "images").iterdir()) + sorted((ROOT / "examples" / "drawn").glob("*.png"))
    model, answers = fastvlm.Model(), {}
    once = {s: str(model.ask(s)) for s in sources}
    for i in range(N_IMAGES - 1):
        source = sources[i % len(sources)]
        name = f"{i:03}{source.suffix}"
        (folder / name).write_bytes(source.read_bytes())
        answers[name] = once[source]
    (folder / "broken.png").write_bytes(sources[0].read_bytes()[:100])
    answers["broken.png"] = ""
    return answers


def run_recipe(work, name, command):
    """Runs a recipe whose workers are killed once; its rows by name of the image."""
    (work / "killer").mkdir()
    (work / "killer" / "sitecustomize.py").write_text(KILLER)
    environment = dict(os.environ, PYTHONPATH=str(work / "killer"), KILLED=str(work / "killed"),
                       PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (work / "killed").exists(), f"{name}: no worker was killed"
    rows = {}
    for path in glob.glob(str(work / "out" / "*.json")):
        for line in open(path, encoding="utf-8"):
            row = json.loads(line)
            assert os.path.basename(row["path"]) not in rows, f"{name}: twice: {row}"
            rows[os.path.basename(row["path"])] = row
    return rows


def same(rows, answers):
    assert {k: r["caption"] for k, r in rows.items()} == answers, rows
    assert [k for k, r in rows.items() if r["error"]] == ["broken.png"], rows


def case_ray(work, answers):
    same(run_recipe(work, "ray", [sys.executable, str(EXAMPLES / "ray_captions.py"), str(work / "images"), str(work / "out")]),
         answers)


def case_spark(work, answers):
    same(run_recipe(work, "spark", ["spark-submit", "--master", "local[2,4]", "--conf", "spark.ui.enabled=false",
                                    str(EXAMPLES / "spark_captions.py"), str(work / "images"), str(work / "out")]), answers)


PACKAGE = os.path.dirname(fastvlm.__file__)
PROGRAM, DEMO = os.path.join(PACKAGE, "bin", "fastvlm"), os.path.join(PACKAGE, "models", "demo.gguf")


def same_as_one(work, answers, n_rows):
    """The tasks' outputs together are the output of one process, every row once."""
    single, rows = work / "single.jsonl", {}
    subprocess.run([PROGRAM, "batch", "-q", str(work / "rows.jsonl"), "-o", str(single)], check=True)
    for path in sorted((work / "out").glob("captions-*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert row["row"] not in rows, row
            rows[row["row"]] = line
    assert [rows[i] for i in range(n_rows)] == single.read_text().splitlines()
    texts = {os.path.basename(r["image"]): r.get("text", "") for r in map(json.loads, rows.values())}
    assert texts == answers, texts


def shards(work, answers, command, n):
    """n tasks by hand, one after the other; one is killed in the middle and started again."""
    out = work / "out"
    out.mkdir()
    for task in range(n):
        variables = dict(os.environ, PATH=os.path.dirname(PROGRAM) + os.pathsep + os.environ["PATH"],
                         JOB_COMPLETION_INDEX=str(task))
        if task == 1:
            before = set(out.iterdir())
            for _ in range(20):  # until it was not faster
                one = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                while one.poll() is None and not glob.glob(str(out / "*.partial")):
                    time.sleep(0.001)
                one.send_signal(signal.SIGKILL)
                if one.wait() == -signal.SIGKILL:
                    break
                for path in set(out.iterdir()) - before:
                    path.unlink()
            assert one.returncode == -signal.SIGKILL, one.returncode
        for _ in range(2):  # the second time changes nothing
            done = subprocess.run(command, env=variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    same_as_one(work, answers, N_IMAGES)


def write_rows(work, answers, times=1):
    (work / "rows.jsonl").write_text(times * "".join(json.dumps({"image": str(work / "images" / n)}) + "\n"
                                                     for n in sorted(answers)))


SLURM = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port1}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES State=UP
"""


def free_ports():
    """Two of them, one after the other."""
    for port in range(16817, 17817, 2):
        try:
            for p in port, port + 1:
                with socket.socket() as s:
                    s.bind(("127.0.0.1", p))
            return port, port + 1
        except OSError:
            pass
    raise OSError("no free ports")


@contextlib.contextmanager
def slurm_node(place):
    """munged, slurmctld and slurmd with their files in place; gives the environment for Slurm's commands."""
    for name in "state", "spool":
        (place / name).mkdir(parents=True)
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    port, port1 = free_ports()
    configuration = place / "slurm.conf"
    configuration.write_text(SLURM.format(place=place, host=socket.gethostname().split(".")[0], port=port, port1=port1,
                                          user=pwd.getpwuid(os.getuid()).pw_name))
    daemons = [["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={place}/munge.socket",
                f"--pid-file={place}/munged.pid", f"--log-file={place}/munged.log", f"--seed-file={place}/munge.seed"],
               ["slurmctld", "-D", "-i", "-f", str(configuration)], ["slurmd", "-D", "-f", str(configuration)]]
    environment = dict(os.environ, SLURM_CONF=str(configuration), FASTVLM=PROGRAM,
                       PATH=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))
    running = []
    try:
        for command in daemons:
            with open(place / f"{command[0]}.out", "w") as log:
                running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            if command[0] == "munged":
                wait(lambda: (place / "munge.socket").exists(), "munged does not start")
        wait(lambda: "idle" in output(environment, "sinfo", "-h", "-o", "%T"), "the node does not become idle")
        yield environment
    finally:
        for daemon in reversed(running):
            daemon.terminate()
            daemon.wait()


def output(environment, *command):
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def wait(condition, problem, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, problem
        time.sleep(0.01)


def case_slurm(work, answers):
    """As an array of 4 tasks, 2 at a time. One is requeued by Slurm in the middle, another killed, so that
    it fails: the same command again finishes that."""
    times = 20
    write_rows(work, answers, times)
    out = work / "out"
    with slurm_node(work / "slurm") as environment:
        def submitted():
            return output(environment, "sbatch", "--parsable", "--array=0-3", f"--output={work}/task-%a.log",
                          str(EXAMPLES / "slurm_captions.sh"), DEMO, str(work / "rows.jsonl"), str(out)).strip()

        def states(job):
            """{task: state}"""
            lines = output(environment, "squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%K %T").split("\n")
            return dict(line.split() for line in lines if line)

        def in_the_middle(task):
            path = out / f"captions-{task}-of-4.jsonl"
            wait(lambda: glob.glob(f"{path}*.partial") or path.exists(), f"task {task} writes nothing")
            assert not path.exists(), f"task {task} was too fast"

        job = submitted()
        in_the_middle(0)
        subprocess.run(["scontrol", "requeue", f"{job}_0"], env=environment, check=True)
        in_the_middle(1)
        subprocess.run(["scancel", "--signal=KILL", f"{job}_1"], env=environment, check=True)
        wait(lambda: states(job).get("0") == "PENDING", "task 0 is not queued again")
        # Slurm would wait for two minutes, in case that the node was at fault.
        subprocess.run(["scontrol", "update", f"JobId={job}_0", "StartTime=now"], env=environment, check=True)
        over = {"COMPLETED", "FAILED", "CANCELLED"}
        wait(lambda: set(states(job).values()) <= over, "the job does not end", 300)
        found = states(job)
        assert found.pop("1") != "COMPLETED" and found == {"0": "COMPLETED", "2": "COMPLETED", "3": "COMPLETED"}, found
        assert not (out / "captions-1-of-4.jsonl").exists()
        finished = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.glob("captions-*.jsonl")}
        again = submitted()
        wait(lambda: set(states(again).values()) <= over, "the job does not end", 300)
        assert set(states(again).values()) == {"COMPLETED"}, states(again)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in finished} == finished
    same_as_one(work, answers, times * N_IMAGES)


def case_kubernetes(work, answers):
    """The manifest by Kubernetes' own schemas; the container's command, its paths replaced."""
    import kubernetes_validate
    import yaml
    write_rows(work, answers)
    job = yaml.safe_load((EXAMPLES / "kubernetes_job.yaml").read_text())
    for version in "1.29", kubernetes_validate.latest_version():  # the first with backoffLimitPerIndex on
        kubernetes_validate.validate(job, version, strict=True)
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] in ("Never", "OnFailure") and spec["backoffLimitPerIndex"] >= 1
    container = pod["containers"][0]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert f'/{spec["completions"]}"' in container["args"][0]
    text = container["args"][0].replace("/data/model.gguf", shlex.quote(DEMO)).replace(
        "/data/rows.jsonl", shlex.quote(str(work / "rows.jsonl"))).replace("/data/captions", str(work / "out" / "captions"))
    shards(work, answers, container["command"] + [text], spec["completions"])


def main():
    cases = sys.argv[1:] or ["ray", "spark", "slurm", "kubernetes"]
    bad = 0
    for name in cases:
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            (work / "images").mkdir()
            try:
                globals()["case_" + name](work, images(work / "images"))
                print(f"[       OK ] {name}", flush=True)
            except Exception:
                traceback.print_exc()
                print(f"[  FAILED  ] {name}", flush=True)
                bad += 1
    print(f"{len(cases) - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
