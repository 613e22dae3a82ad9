"""A web application and its worker: texts are posted, the worker counts their words, jobs and results lie in SQLite.

POST /jobs with a text as its body answers 202 and the job's number, GET /jobs/NUMBER the job, GET /health whether the
worker works. A job that was answered for is on the disk, and a worker that begins takes up what another has left.
"""

import json
import os
import signal
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from wsgiref import simple_server

DATABASE = os.environ.get("DATABASE", "/data/jobs.db")
PORT = int(os.environ.get("PORT", "8000"))
# A worker that has said nothing for so many seconds does not work.
SILENCE = 5
SCHEMA = """
    CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, text TEXT NOT NULL, state TEXT NOT NULL, words INTEGER);
    CREATE TABLE IF NOT EXISTS beats (worker INTEGER PRIMARY KEY, time REAL NOT NULL);
"""


def say(line):
    print(line, flush=True)


def connect():
    database = sqlite3.connect(DATABASE, timeout=30, isolation_level=None)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.executescript(SCHEMA)
    return database


def works(database):
    beat = database.execute("SELECT time FROM beats").fetchone()
    return beat is not None and time.time() - beat["time"] < SILENCE


def answer(database, method, path, body):
    """The status and the object of an answer."""
    match [method, *path.strip("/").split("/")]:
        case ["POST", "jobs"]:
            added = database.execute("INSERT INTO jobs (text, state) VALUES (?, 'waiting')", [body])
            return "202 Accepted", {"id": added.lastrowid}
        case ["GET", "jobs", number]:
            job = database.execute("SELECT * FROM jobs WHERE id = ?", [number]).fetchone()
            return ("200 OK", dict(job)) if job else ("404 Not Found", {"error": f"there is no job {number}"})
        case ["GET", "health"]:
            if works(database):
                return "200 OK", {"worker": "works"}
            return "503 Service Unavailable", {"worker": "is silent"}
    return "404 Not Found", {"error": f"there is no {method} {path}"}


def application(request, start_response):
    length = int(request.get("CONTENT_LENGTH") or 0)
    body = request["wsgi.input"].read(length).decode()
    database = connect()
    try:
        status, content = answer(database, request["REQUEST_METHOD"], request["PATH_INFO"], body)
    finally:
        database.close()
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(content).encode() + b"\n"]


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    """A thread a request."""

    daemon_threads = False


def web():
    server = simple_server.make_server("", PORT, application, server_class=Server)
    # serve_forever waits for its own end in shutdown: that is for another thread.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    say(f"web: listens on port {PORT}")
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    say("web: stopped")


def work_once(database):
    """Takes one job; whether there was one."""
    take = "UPDATE jobs SET state = 'taken' WHERE id = (SELECT min(id) FROM jobs WHERE state = 'waiting') RETURNING id, text"
    job = next(iter(database.execute(take).fetchall()), None)
    if job is None:
        return False
    words = len(job["text"].split())
    database.execute("UPDATE jobs SET state = 'done', words = ? WHERE id = ?", [words, job["id"]])
    say(f"worker: job {job['id']} has {words} words")
    return True


def worker():
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    database = connect()
    database.execute("UPDATE jobs SET state = 'waiting' WHERE state = 'taken'")
    say("worker: works")
    while not stopping.is_set():
        database.execute("INSERT OR REPLACE INTO beats VALUES (1, ?)", [time.time()])
        work_once(database) or stopping.wait(0.2)
    say("worker: stopped")


def both():
    child = subprocess.Popen([sys.executable, __file__, "worker"])
    try:
        web()
    finally:
        child.terminate()
    return child.wait()


def ask(path, body=None):
    data = None if body is None else body.encode()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", data, timeout=10) as response:
            return json.load(response)
    except urllib.error.URLError as error:
        sys.exit(f"app.py: {path}: {error}")


def count(text):
    """Posts a text; the number of its job."""
    return ask("/jobs", text)["id"]


def result(number):
    """Waits, for at most 30 seconds, until the job is done; how many words its text has."""
    end = time.monotonic() + 30
    while (job := ask(f"/jobs/{number}"))["state"] != "done":
        if time.monotonic() > end:
            sys.exit(f"job {number} is still {job['state']}")
        time.sleep(0.1)
    return job["words"]


def main(arguments):
    match arguments:
        case []:
            sys.exit(both())
        case ["web"]:
            web()
        case ["worker"]:
            worker()
        case ["health"]:
            say(ask("/health")["worker"])
        case ["count", text]:
            say(count(text))
        case ["result", number]:
            say(result(number))
        case _:
            sys.exit("usage: app.py [web | worker | health | count TEXT | result NUMBER]")


main(sys.argv[1:])
