"""Servers that misbehave on request, over real HTTP: one of completions, one that judges."""

import base64
import json
import math
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote


class FaultHandler(BaseHTTPRequestHandler):
    """Fails by what the skill is called, for so many requests as its number says."""

    protocol_version = "HTTP/1.1"
    seen: Counter[str]
    bodies: list[dict[str, Any]]
    keys: list[str]
    stop: threading.Event

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        self.keys.append(str(self.headers["Authorization"]))
        if self.path == "/v1/decisions":
            return self.reply(200, decision(body["input"][-1]["content"]))
        fault, _, times = body["messages"][1]["content"].rpartition("Skill: ")[2].partition(" x")
        self.seen[fault] += 1
        if fault in REPLIES:
            return self.reply(200, REPLIES[fault])
        if fault == "new model" and ("max_tokens" in body or "temperature" in body):
            name = "max_tokens" if "max_tokens" in body else "temperature"
            words = f"Unsupported parameter: '{name}' is not supported with this model."
            return self.reply(400, {"error": {"message": words, "param": name, "code": "unsupported_parameter"}})
        if fault.startswith("tells") and body.get("logprobs"):
            likely = {" Hard": 0.5, "Hard": 0.1, " Un": 0.2, " un": 0.0, "\n": 0.1} if fault == "tells" else {"\n": 1.0}
            tokens = [{"token": token, "logprob": math.log(max(share, 1e-9)), "bytes": None} for token, share in likely.items()]
            reply = completion(" Hard")
            reply["choices"][0]["logprobs"] = {"content": [{**tokens[0], "top_logprobs": tokens}], "refusal": None}
            return self.reply(200, reply)
        if fault == "echo":
            sent = str(self.headers["Authorization"]).removeprefix("Bearer ")
            forms = (sent, quote(sent, safe=""), base64.b64encode(sent.encode()).decode())
            return self.reply(200, completion(f" {' '.join(forms)}\nAnswer: Hard"))
        if not times or self.seen[fault] > int(times):
            return self.reply(200, completion(f" fine after {self.seen[fault]}\nAnswer: Hard"))
        if fault == "busy":
            return self.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.2"})
        if fault == "broken":
            return self.reply(500, {"error": {"message": "internal"}})
        if fault == "hung":
            self.stop.wait(5)
            self.close_connection = True
            return None
        if fault == "half":
            content = json.dumps(completion("x")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return None
        if fault == "no json":
            return self.reply(200, '{"id": "1", "choices": [{"mess')
        if fault == "page":
            return self.reply(200, "<html>gateway</html>", {"Content-Type": "text/html"})
        if fault == "empty":
            return self.reply(200, {**completion(""), "choices": []})
        if fault == "too long":
            return self.reply(400, {"error": {"message": "the context is too long"}})
        if fault == "refused":
            return self.reply(400, {"error": {"message": "against the policy", "code": "content_filter"}})
        status = {"key": 401, "model": 404}[fault]
        return self.reply(status, {"error": {"message": f"wrong {fault}, you sent {self.headers['Authorization']}"}})

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def completion(content: Any, finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def decision(question: str) -> dict[str, Any]:
    """What OpenAI's Decisions endpoint replies, by the skill asked about."""
    skill = re.findall(r"Skill: (.*)", question)[-1]
    shares = (
        {"Hard": 0.2, "Soft": 0.7, "Unknown": 0.1} if skill in ("Empathy", "Tact") else {"Hard": 0.9, "Soft": 0.1, "Unknown": 0.0}
    )
    options = [{"value": label, "probability": share} for label, share in shares.items()]
    answer: dict[str, Any] = {"type": "choice", "choice": max(shares, key=lambda one: shares[one]), "confidence": 0.8}
    answer |= {"probabilities": options, "name": None}
    if skill == "refused":
        answer = {"type": "refusal", "name": None}
    if skill == "odd":
        answer = {"type": "score", "score": 1, "confidence": 1.0, "probabilities": []}
    if skill == "other":
        answer |= {"choice": "Green"}
    read = {"cached_tokens": 60, "cache_write_tokens": 0}
    usage = {
        "input_tokens": 100,
        "input_tokens_details": read,
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {"answers": [answer], "model": "gpt-6-luna", "usage": {**usage, "total_tokens": 100}}


GOOD = " fine\nAnswer: Hard"

REPLIES: dict[str, Any] = {
    **{f"ends with {reason}": completion(GOOD, reason) for reason in ("eos_token", "", None, "STOP", "end_turn")},
    **{f"cut by {reason}": completion(" fine", reason) for reason in ("length", "MAX_TOKENS", "model_length")},
    "has no reason": {**completion(GOOD), "choices": [{"index": 0, "message": {"role": "assistant", "content": GOOD}}]},
    "has parts": completion([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": GOOD}]),
    "has no counts": {**completion(GOOD), "usage": {"prompt_tokens": 9, "completion_tokens": None, "total_tokens": 9}},
    "has no usage": {**completion(GOOD), "usage": None},
    "has half an emoji": json.dumps(completion(" nice \ud83d" + GOOD)),
    "is filtered": completion("", "content_filter"),
    "is refused": completion(None, "stop", refusal="I will not."),
    "only thinks": completion(None, "stop", reasoning_content="It is a renderer. Answer: Hard"),
    "ends oddly": completion(GOOD, "tool_calls"),
    "is an error": {"error": {"message": "Provider returned error: model overloaded", "code": 503}},
}
"""What servers of several makes reply, by what the skill is called."""

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


class JudgeHandler(FaultHandler):
    """Judges by what the skill is called."""

    takes: tuple[str | None, ...]
    """The formats that it takes, of json_schema, json_object and none."""
    delay: float
    files: dict[str, str]
    batches: dict[str, dict[str, Any]]
    fault: str
    """Of batches: expired, failed, unknown model, lost output, or none."""
    polls: int
    """So often a batch is looked at before it has ended."""
    creation: str
    """What becomes of the reply to a batch's creation: reset (once), held until it is something else, or none of these."""

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/v1/batches/"):
            return self.look_at_batch(name)
        if self.path.startswith("/v1/batches?"):
            return self.list_batches()
        if self.path.startswith("/v1/files/"):
            if (file := self.path.split("/")[3]) not in self.files:
                return self.reply(404, {"error": {"message": "no such file"}})
            return self.reply(200, self.files[file], {"Content-Type": "application/octet-stream"})
        if name == "gone":
            return self.reply(404, {"error": {"message": "no such model"}})
        if name == "broken":
            return self.reply(500, {"error": {"message": "offline"}})
        shutdown = {"shutdown_date": "2026-12-11"} if name == "o3" else {}
        return self.reply(200, {"id": name, "object": "model", "created": 0, "owned_by": "x", **shutdown})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(str(self.headers["Authorization"]))
        if self.path == "/v1/files":
            name = f"file-{len(self.batches)}"
            self.files[name] = sent.decode().partition('filename="questions.jsonl"')[2].partition("\r\n\r\n")[2]
            self.files[name] = self.files[name].partition("\r\n--")[0]
            return self.reply(
                200, {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "q", "purpose": "batch"}
            )
        body = json.loads(sent)
        if self.path == "/v1/decisions":
            self.bodies.append(body)
            return self.reply(200, decision(body["input"][-1]["content"]))
        if self.path == "/v1/batches":
            name = f"batch-{len(self.batches)}"
            self.batches[name] = {"file": body["input_file_id"], "endpoint": body["endpoint"], "polls": 0, "fault": self.fault}
            if self.creation == "reset":
                type(self).creation = ""
                self.close_connection = True
                return None
            while self.creation == "held":
                time.sleep(0.01)
            return self.reply(200, self.batch(name, "validating"))
        self.bodies.append(body)
        skill = body["messages"][-1]["content"].removeprefix("Skill: ").partition("\n")[0]
        self.seen[skill] += 1
        time.sleep(self.delay)
        wanted = (body.get("response_format") or {}).get("type")
        if wanted not in self.takes:
            return self.reply(400, {"error": {"message": f"response_format {wanted} is not supported"}})
        if skill == "wrong key":
            return self.reply(401, {"error": {"message": "Incorrect API key provided"}})
        if skill == "no quota":
            return self.reply(429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
        if skill.startswith("busy") and self.seen[skill] == 1:
            return self.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.1"})
        if skill.startswith("broken"):
            return self.reply(500, {"error": {"message": "internal"}})
        verdict = "Soft" if skill in ("Empathy", "Tact") else "Hard"
        verdict = "Soft" if skill == "wavering" and self.seen[skill] % 2 else verdict
        answer = {"rationale": f"About {skill}.", "verdict": verdict}
        content = json.dumps(answer) if wanted else f"About {skill}.\nVerdict: {verdict}"
        content = f"Here it is:\n```json\n{content}\n```" if skill == "fenced" else content
        content = '{"rationale": "The answer is Hard", "verdict": "Hardish"}' if skill == "wrong schema" else content
        reply = completion(content[:20] if skill == "long" else content, {"long": "length"}.get(skill, "stop"))
        if skill in ("refused", "filtered"):
            reply = completion(None, "stop" if skill == "refused" else "content_filter", refusal="I will not.")
        if skill == "empty":
            reply["choices"] = []
        return self.reply(200, {**reply, "model": "m-2026", "usage": USAGE})

    def batch(self, name: str, status: str, **more: Any) -> dict[str, Any]:
        known = self.batches[name]
        usual = {"id": name, "object": "batch", "created_at": 0, "completion_window": "24h", "input_file_id": known["file"]}
        return {**usual, "endpoint": known["endpoint"], "status": status, **more}

    def list_batches(self) -> None:
        """A page of one batch, the latest first."""
        names = list(reversed(self.batches))
        after = self.path.partition("after=")[2].partition("&")[0]
        place = names.index(after) + 1 if after else 0
        page = [self.batch(name, "in_progress") for name in names[place : place + 1]]
        self.reply(200, {"object": "list", "data": page, "has_more": place + 1 < len(names)})

    def look_at_batch(self, name: str) -> None:
        if name not in self.batches:
            return self.reply(404, {"error": {"message": "no such batch"}})
        known = self.batches[name]
        known["polls"] += 1
        lines = [json.loads(line) for line in self.files[known["file"]].splitlines()]
        counts = {"total": len(lines), "completed": 0, "failed": 0}
        if known["polls"] <= self.polls:
            return self.reply(200, self.batch(name, "in_progress", request_counts=counts))
        if known["fault"] == "failed":
            errors = {"object": "list", "data": [{"code": "x", "message": "the queue is full", "line": None, "param": None}]}
            return self.reply(200, self.batch(name, "failed", errors=errors))
        answered = lines[: len(lines) // 2] if known["fault"] == "expired" else lines
        good: list[str] = []
        bad: list[str] = []
        for line in answered:
            if known["endpoint"] == "/v1/responses":
                skill = line["body"]["input"][-1]["content"].removeprefix("Skill: ")
            else:
                skill = line["body"]["messages"][-1]["content"].removeprefix("Skill: ")
            self.seen[skill] += 1
            code, reply = batch_answer(skill, known["endpoint"])
            if known["fault"] == "unknown model":
                code, reply = 404, {"error": {"code": "model_not_found", "message": "m-batch does not exist"}}
            result = {"custom_id": line["custom_id"], "response": {"status_code": code, "body": reply}, "error": None}
            (good if code == 200 else bad).append(json.dumps(result, ensure_ascii=False))
        for line in lines[len(answered) :]:
            error = {
                "code": "batch_expired",
                "message": "This request could not be executed before the completion window expired.",
            }
            bad.append(json.dumps({"custom_id": line["custom_id"], "response": None, "error": error}))
        random.Random(1).shuffle(good)
        self.files[f"{name}-out"] = "\n".join([*good, *good[:2], '{"custom_id": "half'])
        self.files[f"{name}-errors"] = "\n".join(bad)
        if known["fault"] == "lost output":
            del self.files[f"{name}-out"]
        named = {"output_file_id": f"{name}-out" if good else None, "error_file_id": f"{name}-errors" if bad else None}
        counts |= {"completed": len(good), "failed": len(bad)}
        status = "expired" if known["fault"] == "expired" else "completed"
        return self.reply(200, self.batch(name, status, request_counts=counts, **named))


def batch_answer(skill: str, endpoint: str) -> tuple[int, dict[str, Any]]:
    verdict = json.dumps(
        {"rationale": f"About\u2028{skill}.", "verdict": "Soft" if skill == "Empathy" else "Hard"}, ensure_ascii=False
    )
    if skill.startswith("broken"):
        return 500, {"error": {"code": "server_error", "message": "internal"}}
    if endpoint == "/v1/chat/completions":
        refusal = {"refusal": "I will not."} if skill == "refused" else {}
        return 200, {**completion(None if refusal else verdict, "stop", **refusal), "model": "m-2026", "usage": USAGE}
    part = {"type": "output_text", "text": verdict}
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    details = {"input_tokens_details": {"cached_tokens": 60}, "output_tokens_details": {"reasoning_tokens": 5}}
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "content": [part]}]
    cut = {"incomplete_details": {"reason": "max_output_tokens"}} if skill == "long" else {}
    return 200, {"model": "m-2026", "output": [] if cut else output, "usage": usage | details, **cut}


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[tuple[str, ThreadingHTTPServer]]:
    """A server and its base URL; it ends with the context."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", http
    http.shutdown()
    http.server_close()
