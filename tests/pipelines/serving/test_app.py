"""The server, asked over a real connection."""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from components.ingest_examples.photos import decode_square
from pipelines.serving.model import ServedModel
from pipelines.serving.offline import ask
from tests.builders import draw_photo, encode
from tests.pipelines.serving.running import running_server

PREDICT = "/v1/models/flowers:predict"
EXPLAIN = "/v1/models/flowers:explain"
RAW = {"Content-Type": "image/jpeg"}


def photo(number=0, size=(64, 48)):
    return encode(draw_photo(number % 3, number, size), quality=95, subsampling=0)


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def instances(*photos):
    return json.dumps({"instances": [{"image_bytes": b64(one)} for one in photos]})


def answer(running, body, path=PREDICT, headers=None):
    code, content, _ = running.ask("POST", path, body, headers)
    return code, json.loads(content)


class TestPredict:
    def test_says_what_the_saved_model_says(self, running, saved_model):
        photos = [photo(number) for number in range(6)]
        serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
        expected = serve(image_bytes=tf.constant(photos))
        code, content = answer(running, instances(*photos))
        assert code == 200
        shares = [one["probabilities"] for one in content["predictions"]]
        # Two decoders and two ways to resize: a level of a pixel apart.
        np.testing.assert_allclose(shares, expected["probabilities"].numpy(), atol=0.02)
        names = [name.decode() for name in expected["class_names"].numpy()[0]]
        for one in content["predictions"]:
            assert one["class_names"] == names
            assert one["label"] == names[int(np.argmax(one["probabilities"]))]

    def test_every_form_gives_the_same(self, running):
        one = photo(1)
        expected = answer(running, instances(one))[1]["predictions"]
        assert answer(running, json.dumps({"instances": [b64(one)]}))[1]["predictions"] == expected
        assert answer(running, one, headers=RAW)[1]["predictions"] == expected
        columns = answer(running, json.dumps({"inputs": {"image_bytes": [b64(one)]}}))[1]["outputs"]
        assert columns == {key: [value] for key, value in expected[0].items()}
        named = json.loads(instances(one)) | {"signature_name": "serving_default"}
        versioned = "/v1/models/flowers/versions/1:predict"
        assert answer(running, json.dumps(named), versioned)[1]["predictions"] == expected

    def test_photo_becomes_a_square_as_the_export_says(self, saved_model, tmp_path):
        shutil.copytree(saved_model, tmp_path / "stretch")
        file = tmp_path / "stretch" / "assets.extra" / "flowers.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"resize": "stretch"}))
        wide = photo(2, (256, 48))
        (tmp_path / "wide.jpg").write_bytes(wide)
        received = {}
        for folder in (saved_model, tmp_path / "stretch"):
            with running_server(folder) as server:
                image = decode_square(wide, 32, server.model.resize)
                expected = server.model.predict(image[np.newaxis])[0]
                shares = answer(server, wide, headers=RAW)[1]["predictions"][0]["probabilities"]
            np.testing.assert_allclose(shares, expected, atol=1e-5)
            (offline,) = ask(ServedModel(folder), [str(tmp_path / "wide.jpg")])
            assert max(offline.probabilities.values()) == pytest.approx(max(shares), abs=1e-5)
            received[folder.name] = shares
        assert np.abs(np.subtract(*received.values())).max() > 0.01

    def test_answers_are_in_the_order_of_the_photos(self, running):
        photos = [photo(number) for number in range(12)]
        together = answer(running, instances(*photos))[1]["predictions"]
        for number, one in enumerate(photos):
            alone = answer(running, one, headers=RAW)[1]["predictions"][0]
            shares = together[number]["probabilities"]
            np.testing.assert_allclose(alone["probabilities"], shares, atol=1e-5)

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP"])
    def test_other_formats(self, running, kind):
        content = encode(draw_photo(0, 0), kind)
        assert answer(running, content, headers=RAW)[0] == 200

    def test_heat_map(self, running):
        code, content = answer(running, photo(), EXPLAIN, RAW)
        assert code == 200
        (one,) = content["predictions"]
        heat = np.array(one["heat_map"])
        assert heat.ndim == 2
        assert heat.min() >= 0
        assert heat.max() in {0.0, 1.0}
        plain = answer(running, photo(), headers=RAW)[1]["predictions"][0]
        np.testing.assert_allclose(one["probabilities"], plain["probabilities"], atol=1e-5)

    def test_many_clients_at_once_get_their_own_answers(self, running):
        photos = [photo(number) for number in range(8)]
        expected = [answer(running, one, headers=RAW)[1] for one in photos]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: answer(running, photos[i % 8], headers=RAW), range(64)))
        for number, (code, content) in enumerate(found):
            assert code == 200
            received, wanted = (
                one["predictions"][0]["probabilities"] for one in (content, expected[number % 8])
            )
            np.testing.assert_allclose(received, wanted, atol=1e-5)


BAD = [
    ("not json", b"\xff\xfe{", "the body is not JSON"),
    ("nothing", b"", "the body is not JSON"),
    ("a number", b"1", "received a JSON int"),
    ("NaN", b'{"instances": NaN}', "NaN is not JSON"),
    ("no instances", b"{}", "expected {"),
    ("both forms", b'{"instances": [], "inputs": []}', "one of the two"),
    ("empty", b'{"instances": []}', "received empty list"),
    ("a text", b'{"instances": "x"}', "received text"),
    ("no photo", b'{"instances": [1]}', 'photo 0: expected {"b64"'),
    ("more keys", b'{"instances": [{"b64": "", "key": 1}]}', "photo 0: expected"),
    ("b64 of a number", b'{"instances": [{"b64": 1}]}', "photo 0: expected"),
    ("base64", b'{"instances": [{"b64": "!!"}]}', "photo 0: the base64 is wrong"),
    ("no bytes", b'{"instances": [{"b64": ""}]}', "not an image"),
    (
        "signature",
        b'{"signature_name": "x", "instances": [{"b64": ""}]}',
        "signature_name: expected",
    ),
    ("deep", b"[" * 100_000, "the body is not JSON"),
]


class TestRefused:
    @pytest.mark.parametrize(
        ("body", "reason"), [case[1:] for case in BAD], ids=[c[0] for c in BAD]
    )
    def test_body(self, running, body, reason):
        code, content = answer(running, body)
        assert code == 400
        assert reason in content["error"]

    def test_names_the_bad_photo(self, running):
        code, content = answer(running, instances(photo(), b"text", photo()))
        assert (code, content["error"]) == (
            400,
            "photo 1: not an image: no image format is recognised",
        )

    def test_too_many_photos(self, running):
        code, content = answer(running, instances(*[b"x"] * 17))
        assert (code, content["error"]) == (400, "expected at most 16 photos, received 17")

    def test_pixels_are_limited_by_the_header(self, running):
        code, content = answer(running, photo(0, (2000, 1200)), headers=RAW)
        assert code == 400
        assert content["error"] == "too large: 2000 x 1200 is 2 megapixels, the limit is 2"

    def test_formats_for_other_machines_stay_closed(self, running):
        code, content = answer(running, encode(draw_photo(0, 0), "TIFF"), headers=RAW)
        assert code == 400
        assert "TIFF is not taken" in content["error"]

    @pytest.mark.parametrize("declared", [True, False])
    def test_large_body(self, running, declared):
        body = bytes(2**21)
        sent = body if declared else (body[i : i + 2**16] for i in range(0, len(body), 2**16))
        code, content = answer(running, sent, headers=RAW)
        assert (code, content["error"]) == (413, "expected at most 1 MiB")

    def test_unknown_address(self, running):
        for path in (
            "/v1/models/roses:predict",
            "/../etc/passwd",
            "/static/../app.py",
            "/%2e%2e/x",
        ):
            code, content, _ = running.ask("GET", path)
            assert code == 404
            assert json.loads(content)["error"].startswith("there is nothing at")

    def test_other_method(self, running):
        code, content, headers = running.ask("DELETE", PREDICT)
        assert code == 405
        assert "DELETE is not what" in json.loads(content)["error"]
        assert headers["Allow"] == "POST"

    @pytest.mark.parametrize(
        "part",
        [
            b"",
            b"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            b"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
        ],
        ids=["nothing", "headers", "body"],
    )
    def test_slow_sender(self, running, part):
        with socket.create_connection((running.host, running.port), timeout=10) as client:
            began = time.monotonic()
            client.sendall(part)
            received = client.recv(10_000)
            assert received.startswith(b"HTTP/1.1 408")
            assert b"in time" in received or b"did not arrive within 1 s" in received
            assert time.monotonic() - began < 8

    def test_long_headers(self, running):
        with socket.create_connection((running.host, running.port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 2**16 + b"\r\n\r\n")
            assert client.recv(10_000).startswith(b"HTTP/1.1 400")


class TestOperation:
    def test_health_readiness_and_status(self, running):
        assert running.ask("GET", "/healthz")[:2] == (200, b"ok")
        assert running.ask("GET", "/readyz")[:2] == (200, b"ready")
        status = json.loads(running.ask("GET", "/v1/models/flowers")[1])
        assert status["model_version_status"][0]["state"] == "AVAILABLE"
        metadata = json.loads(running.ask("GET", "/v1/models/flowers/metadata")[1])["metadata"]
        assert metadata["class_names"] == ["circles", "squares", "stripes"]

    def test_metrics_count(self, running):
        def value(name):
            lines = running.ask("GET", "/metrics")[1].decode().splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

        name = f'flowers_requests_total{{code="400",route="{PREDICT}"}}'
        before, photos = value(name), value("flowers_photos_total")
        answer(running, b"")
        answer(running, instances(photo(), photo(1)))
        assert value(name) == before + 1
        assert value("flowers_photos_total") == photos + 2
        assert value("flowers_batch_photos_count") >= 1
        assert value("flowers_photos_in_flight") == 0
        assert value("flowers_ready") == 1

    def test_card_and_credits(self, running):
        card = json.loads(running.ask("GET", "/model-card")[1])
        assert card["metrics"]["examples"] == 9
        assert running.ask("GET", "/model-card.md")[1].startswith(b"# Model card")

    def test_page_allows_nothing_from_elsewhere(self, running):
        code, page, headers = running.ask("GET", "/")
        assert code == 200
        assert b"Drop a photo here" in page
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")

    def test_not_ready_while_the_model_loads(self, saved_model):
        hold = threading.Event()
        with running_server(saved_model, hold) as server:
            code, content, headers = server.ask("POST", PREDICT, photo(), RAW)
            assert code == 503
            assert b"is being loaded" in content
            assert headers["Retry-After"] == "2"
            assert server.ask("GET", "/healthz")[0] == 200
            assert server.ask("GET", "/readyz")[0] == 503
            hold.set()
            while server.ask("GET", "/readyz")[0] == 503:
                time.sleep(0.05)
            assert server.ask("POST", PREDICT, photo(), RAW)[0] == 200

    def test_overload_is_told_at_once(self, saved_model):
        with running_server(saved_model, max_photos=4, max_instances=4) as server:
            slow = server.model.predict

            def predict(images):
                time.sleep(0.5)
                return slow(images)

            server.model.predict = predict
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                began = time.monotonic()
                waiting = [pool.submit(server.ask, "POST", PREDICT, photo(), RAW) for _ in range(4)]
                time.sleep(0.2)
                code, content, headers = server.ask("POST", PREDICT, photo(), RAW)
                refused = time.monotonic() - began
                codes = [one.result()[0] for one in waiting]
            assert code == 429
            assert b"no more than 4" in content
            assert headers["Retry-After"] == "1"
            assert refused < 0.5
            assert codes == [200] * 4

    def test_no_answer_in_time(self, saved_model):
        with running_server(saved_model, timeout=0.1) as server:
            slow = server.model.predict

            def predict(images):
                time.sleep(0.4)
                return slow(images)

            server.model.predict = predict
            code, content, _ = server.ask("POST", PREDICT, photo(), RAW)
            assert (code, json.loads(content)["error"]) == (503, "no answer within 0.1 s")
            del server.model.predict
            time.sleep(0.5)
            assert server.ask("POST", PREDICT, photo(), RAW)[0] == 200

    def test_fault_of_the_model_is_a_500_and_the_next_is_answered(self, saved_model):
        with running_server(saved_model) as server:

            def predict(images):
                raise RuntimeError("secret detail")

            server.model.predict = predict
            code, content, _ = server.ask("POST", PREDICT, photo(), RAW)
            assert (code, content) == (500, b'{"error":"a fault of the server"}')
            del server.model.predict
            assert server.ask("POST", PREDICT, photo(), RAW)[0] == 200


@pytest.mark.parametrize("most", [1, 2])
def test_as_many_connections_are_served_as_are_allowed(saved_model, most):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_server(saved_model, max_connections=most))
        codes = []
        for _ in range(most + 1):
            connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
            stack.callback(connection.close)
            connection.request("GET", "/healthz")
            with connection.getresponse() as response:
                codes.append(response.status)
                response.read()
    assert codes == [200] * most + [503]
