#!/usr/bin/env python3
"""examples/cluster against one machine: every recipe runs on 48 images, one of them damaged, a worker
is killed in the middle, and the answers must be those of Model.ask. tools/test-cluster.sh installs
what this needs.

    tests/cluster/cases.py [CASE...]     ray spark slurm kubernetes"""
import glob
import json
import os
import pathlib
import shlex
import signal
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


def shards(work, answers, command, n, environment):
    """n tasks by hand, one after the other; one is killed in the middle and started again."""
    out, rows = work / "out", {}
    out.mkdir()
    program = [os.path.join(os.path.dirname(fastvlm.__file__), "bin", "fastvlm")]
    single = work / "single.jsonl"
    subprocess.run(program + ["batch", "-q", str(work / "rows.jsonl"), "-o", str(single)], check=True)
    for task in range(n):
        variables = dict(os.environ, FASTVLM=program[0], PATH=os.path.dirname(program[0]) + os.pathsep + os.environ["PATH"],
                         **{k: str(v).format(task=task) for k, v in environment.items()})
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
    for path in sorted(out.glob("captions-*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert row["row"] not in rows, row
            rows[row["row"]] = line
    assert [rows[i] for i in range(N_IMAGES)] == single.read_text().splitlines()
    texts = {os.path.basename(r["image"]): r.get("text", "") for r in map(json.loads, rows.values())}
    assert texts == answers, texts


def write_rows(work, answers):
    (work / "rows.jsonl").write_text("".join(json.dumps({"image": str(work / "images" / n)}) + "\n" for n in sorted(answers)))


def case_slurm(work, answers):
    """The script as Slurm would start it, by its variables."""
    write_rows(work, answers)
    demo = os.path.join(os.path.dirname(fastvlm.__file__), "models", "demo.gguf")
    subprocess.run(["bash", "-n", str(EXAMPLES / "slurm_captions.sh")], check=True)
    shards(work, answers, ["bash", str(EXAMPLES / "slurm_captions.sh"), demo, str(work / "rows.jsonl"), str(work / "out")], 4,
           {"SLURM_ARRAY_TASK_ID": "{task}", "SLURM_ARRAY_TASK_COUNT": 4, "SLURM_ARRAY_TASK_MIN": 0, "SLURM_CPUS_PER_TASK": 2})


def case_kubernetes(work, answers):
    """The container's command, its paths replaced; the manifest's fields by hand."""
    import yaml
    write_rows(work, answers)
    job = yaml.safe_load((EXAMPLES / "kubernetes_job.yaml").read_text())
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] in ("Never", "OnFailure") and spec["backoffLimitPerIndex"] >= 1
    container = pod["containers"][0]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert f'/{spec["completions"]}"' in container["args"][0]
    demo = os.path.join(os.path.dirname(fastvlm.__file__), "models", "demo.gguf")
    text = container["args"][0].replace("/data/model.gguf", shlex.quote(demo)).replace(
        "/data/rows.jsonl", shlex.quote(str(work / "rows.jsonl"))).replace("/data/captions", str(work / "out" / "captions"))
    shards(work, answers, container["command"] + [text], spec["completions"], {"JOB_COMPLETION_INDEX": "{task}"})


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
