"""fastvlm serve: many clients at once, clients that go away, stall or come too many, and the server's end. Also
run under the thread sanitizer. See serving.py."""
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from serving import CHAT, LIMIT, PROGRAM, ROOT, SIGN, Server, endless, expect, main, picture, user, words


def together(calls):
    results = [None] * len(calls)

    def one(i):
        results[i] = calls[i]()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(calls))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(LIMIT)
    return results


def case_many_clients(folder):
    """Each gets the answer, to the last bit of its logarithms, that it gets alone."""
    questions = ["What does the text say?", "What color is the text?", "How many shapes are there?", "What is it?"]
    asks = [(user(picture(name), words(q)), stream) for name in ("sign.png", "shapes.png", "count.png") for q in questions
            for stream in (False, True)]

    def ask(server, message, stream):
        answer = server.chat(message, logprobs=True, top_logprobs=1, max_tokens=30, stream=stream)
        assert answer.status == 200, answer
        if not stream:
            return answer.json["choices"][0]["logprobs"]["content"]
        return [t for e in answer.events for t in (e["choices"][0].get("logprobs") or {"content": []})["content"]]

    with Server("--parallel", "1") as s:
        alone = [ask(s, *a) for a in asks]
    with Server("--parallel", "6") as s:
        assert together([lambda a=a: ask(s, *a) for a in asks]) == alone
        metrics = s.metrics()
        assert metrics["fastvlm_images_encoded_total"] == 3, metrics
        assert metrics['fastvlm_jobs_total{outcome="done"}'] == metrics["fastvlm_jobs_taken_total"] == len(asks)


def case_vanishing_clients(folder):
    """Clients that close their connection end their work, streamed or not, and nothing hangs."""
    with Server("--parallel", "2", "-t", "1", env={"FV_CPU": "ref"}) as s:
        options = endless(s)
        for attempt in range(20):
            sockets = []
            for i in range(12):
                body = json.dumps({"messages": [user("Client %d" % i)], "stream": i % 2 == 0, **options}).encode()
                sockets.append(s.raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body)))
            for i, sock in enumerate(sockets):
                if i % 3 == 0:  # rudely: a reset
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
            metrics = s.until("work for clients that have gone", lambda m: m["fastvlm_jobs_running"] == m["fastvlm_jobs_queued"] == 0)
            if metrics['fastvlm_jobs_total{outcome="cancelled"}'] > 0:
                break
        total = sum(metrics['fastvlm_jobs_total{outcome="%s"}' % o] for o in ("done", "failed", "cancelled"))
        assert metrics['fastvlm_jobs_total{outcome="cancelled"}'] > 0 and total == metrics["fastvlm_jobs_taken_total"], metrics
        assert s.chat(SIGN).text == "HELLO"


def case_full(folder):
    """A queue and connections that are full are said to be, with when to come again."""
    with Server("--parallel", "1", "--queue", "0", "-t", "1", env={"FV_CPU": "ref"}) as s:  # slow
        body = json.dumps({"messages": [user("Hi")], "stream": True, **endless(s)}).encode()
        for attempt in range(20):
            held = s.raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body))
            assert held.recv(1)
            answer = s.chat(user("Hi"), max_tokens=1)
            held.close()
            s.until("the answer of a client that has gone", lambda m: m["fastvlm_jobs_running"] == 0)
            if answer.status != 200:
                break
        expect(answer, 503, "1 requests are under way", code="queue_full")
        assert answer.headers["Retry-After"] and s.chat(user("Hi"), max_tokens=1).status == 200
    with Server("--connections", "2") as s:
        held = [s.raw(), s.raw()]
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            answer = s.get("/v1/models")
            if answer.status == 429:
                break
        expect(answer, 429, "more than 2", code="too_many_connections")
        for early in held:  # those that were there first are served
            early.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert early.recv(64).startswith(b"HTTP/1.1 200 "), "an early connection is refused"
        assert answer.headers["Retry-After"] and s.get("/health").status == 200
        for one in held:
            one.close()
        while s.get("/v1/models").status != 200:
            assert time.monotonic() < end, "connections that were closed still count"


def case_gone_while_waiting(folder):
    """Clients that leave the queue are no longer counted in it, whatever goes on; what they did not get is in no counter."""
    with Server("--parallel", "1", "-t", "1", env={"FV_CPU": "ref"}) as s:
        body = json.dumps({"messages": [user("Hi")], "stream": True, **endless(s)}).encode()
        post = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body)
        for attempt in range(20):
            answering = s.raw(post)
            assert answering.recv(1)
            waiting = [s.raw(post) for i in range(2)]
            before = s.until("two that wait, or an answer that is over", lambda m: m["fastvlm_jobs_queued"] == 2 or not m["fastvlm_jobs_running"])
            for one in waiting:
                one.close()
            after = s.until("a queue without those that have gone", lambda m: not m["fastvlm_jobs_queued"])
            answering.close()
            last = s.until("the end", lambda m: not m["fastvlm_jobs_running"])
            if before["fastvlm_jobs_queued"] == 2 and after["fastvlm_jobs_running"]:
                break
        assert after["fastvlm_jobs_running"], "the answers were too quick for this test"
        assert last["fastvlm_prompt_tokens_total"] > last["fastvlm_reused_tokens_total"], "cancelled answers' prompts count, too"


def case_drain(folder):
    """SIGTERM lets an answer that is under way end; new requests are refused."""
    with Server("-t", "1", env={"FV_CPU": "ref"}) as s:
        connection = s.connect()
        connection.request("POST", CHAT, json.dumps({"messages": [user("Hi")], "stream": True, **endless(s), "max_tokens": 200}))
        response = connection.getresponse()
        first = response.read(10)
        early = s.connect()
        early.request("GET", "/health")
        assert early.getresponse().read() == b'{"status":"ok"}\n'
        s.process.send_signal(signal.SIGTERM)
        ended = time.monotonic() + LIMIT
        while time.monotonic() < ended:
            early.request("GET", "/health")
            health = early.getresponse().read()
            if health != b'{"status":"ok"}\n':
                break
        assert health == b'{"status":"shutting down"}\n', health
        early.close()
        rest = first + response.read()
        assert rest.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"length"' in rest, rest[-500:]
        assert s.process.wait(LIMIT) == 0
    with Server("--drain", "0", "-t", "1", env={"FV_CPU": "ref"}) as s:
        connection = s.connect()
        connection.request("POST", CHAT, json.dumps({"messages": [user("Hi")], "stream": True, **endless(s)}))
        response = connection.getresponse()
        response.read(10)
        assert s.stop(signal.SIGINT) == 0, "answers under way hold up the end"


def case_slow_clients(folder):
    """A byte now and then does not keep a connection: headers, body and idle time are bounded."""
    with Server("--header-timeout", "1", "--body-timeout", "1") as s:
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" % CHAT.encode()
        slow = [s.raw(), s.raw(b"GET /hea"), s.raw(head), s.raw(head)]
        closed = [False] * len(slow)
        end = time.monotonic() + LIMIT
        while not all(closed) and time.monotonic() < end:
            time.sleep(0.05)
            for i, one in enumerate(slow):
                try:
                    if i in (1, 3) and not closed[i]:
                        one.sendall(b"x")
                    one.setblocking(False)
                    closed[i] = closed[i] or one.recv(65536) == b""
                except BlockingIOError:
                    pass
                except OSError:
                    closed[i] = True
                one.setblocking(True)
        assert all(closed), closed
        assert s.get("/health").status == 200


def case_stalled_reader(folder):
    """Who asks and does not read is cut off; the answer's session is free for others."""
    with Server("--send-timeout", "1", "--header-timeout", "1", "--parallel", "1") as s:
        body = json.dumps({"messages": [user("Hi")], "stream": True, "logprobs": True, "top_logprobs": 20, **endless(s)}).encode()
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect((s.host, s.port))
        stalled.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body))
        s.until("a stalled reader keeps its connection", lambda m: m["fastvlm_http_connections"] == 1)
        assert s.chat(SIGN).text == "HELLO"
        stalled.close()


def case_soak(folder):
    """bench/server's soak in small: clients that vanish, send garbage and stall beside honest ones."""
    soak = subprocess.run([sys.executable, "-B", os.path.join(ROOT, "bench/server/run.py"), "--soak", "3"], capture_output=True, text=True,
                          timeout=LIMIT, env={**os.environ, "FASTVLM": PROGRAM})
    assert soak.returncode == 0 and "counters add up, nothing hangs" in soak.stdout, soak.stdout + soak.stderr


if __name__ == "__main__":
    main(sys.modules["__main__"])
