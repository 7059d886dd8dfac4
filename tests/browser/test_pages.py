"""The report of a run and the page of the server, in a browser."""

import subprocess
import sys

import pytest

from tests.builders import encode
from tests.pipelines.serving.running import running_server

pytestmark = pytest.mark.browser
# A run of seconds, whose gate opens.
RUN = [
    *("run", "--images", "synthetic://flowers?per_class=60", "--set", "train.epochs=6"),
    *("--set", "gate.threshold=0.2", "--hourly-price", "0.2"),
]
# Puts a file onto the page as a hand would.
DROP = """([name, type, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
    for (const kind of ["dragenter", "dragover", "drop"])
        document.getElementById("drop").dispatchEvent(
            new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
# The part of the page that is wider than the window, if any.
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    subprocess.run([sys.executable, "-m", "pipelines", *RUN, "--output", output], check=True)
    (folder,) = output.iterdir()
    return folder


@pytest.fixture(scope="module")
def server(run):
    with running_server(run / "steps" / "export-model" / "saved_model") as running:
        yield running


def tulip(kind="JPEG"):
    from components.ingest_examples import synthetic

    return encode(synthetic.render_flower("tulips", 3, 0).resize((300, 200)), kind)


def drop(page, name, kind, content):
    page.evaluate(DROP, [name, kind, list(content)])


class TestReport:
    @pytest.mark.parametrize(
        ("name", "width", "scheme"),
        [("report", 1000, "light"), ("report-dark", 1000, "dark"), ("report-phone", 390, "light")],
    )
    def test_loads_by_itself(self, open_page, run, name, width, scheme):
        watched = open_page(width=width, scheme=scheme)
        home = (run / "report.html").resolve().as_uri()
        watched.page.goto(home)
        watched.picture(name)
        assert watched.complaints == []
        assert watched.foreign(home) == []
        assert watched.page.locator("h2").first.inner_text() == "Verdict"
        assert "Gate open" in watched.page.locator(".verdict").inner_text()
        assert watched.page.evaluate(OVERFLOW) <= 0

    def test_every_picture_has_a_text(self, open_page, run):
        watched = open_page()
        watched.page.goto((run / "report.html").resolve().as_uri())
        for picture in watched.page.locator("img").all():
            assert picture.get_attribute("alt")
        charts = watched.page.locator("figure[role=img]").all()
        assert len(charts) >= 7
        assert all(chart.get_attribute("aria-label") for chart in charts)

    def test_all_pictures_are_drawn(self, open_page, run):
        watched = open_page()
        watched.page.goto((run / "report.html").resolve().as_uri())
        widths = watched.page.evaluate("() => [...document.images].map((i) => i.naturalWidth)")
        assert len(widths) > 20
        assert all(widths)

    def test_keyboard_reaches_links_and_wide_parts(self, open_page, run):
        watched = open_page(width=390)
        page = watched.page
        page.goto((run / "report.html").resolve().as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.getAttribute('href')") == "#verdict"
        wide = page.evaluate(
            """() => [...document.querySelectorAll("main *")].filter((one) =>
                one.scrollWidth > one.clientWidth + 1
                && ["auto", "scroll"].includes(getComputedStyle(one).overflowX)
                && one.tabIndex < 0).map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert wide == []


class TestPage:
    @pytest.fixture
    def watched(self, open_page, server):
        watched = open_page()
        watched.page.goto(server.address)
        watched.page.get_by_text("It tells daisy").wait_for()
        yield watched
        assert watched.foreign(server.address) == []

    def test_shows_the_model(self, watched):
        watched.picture("page")
        assert watched.complaints == []
        assert "Test accuracy" in watched.page.locator("#facts").inner_text()
        assert "drawn by this project" in watched.page.locator("#credits").inner_text()
        assert watched.page.locator("#not-for li").count() >= 2

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_photo_dropped_gives_its_class(self, watched, server, kind):
        photo = tulip(kind)
        _, body, _ = server.ask(
            "POST", "/v1/models/flowers:predict", photo, {"Content-Type": "image/any"}
        )
        drop(watched.page, f"tulip.{kind.lower()}", f"image/{kind.lower()}", photo)
        watched.page.locator("#result").wait_for()
        watched.picture(f"page-answer-{kind.lower()}")
        label = watched.page.locator("#answer").inner_text().partition(",")[0]
        assert f'"label":"{label}"'.encode() in body
        assert watched.page.locator("#bars tr").count() == 5
        assert watched.complaints == []

    def test_heat_map_is_drawn_and_can_be_hidden(self, watched):
        drop(watched.page, "tulip.jpg", "image/jpeg", tulip())
        watched.page.locator("#result").wait_for()
        warm = watched.page.evaluate(
            """() => document.getElementById("heat").getContext("2d")
                .getImageData(0, 0, 480, 480).data.filter((_, i) => i % 4 === 3)
                .reduce((most, one) => Math.max(most, one), 0)"""
        )
        assert warm > 100
        watched.page.locator("#show-heat").uncheck()
        assert not watched.page.locator("#heat").is_visible()

    def test_text_file_dropped_gives_a_clear_message(self, watched):
        drop(watched.page, "notes.txt", "text/plain", b"milk, bread")
        problem = watched.page.locator("#problem")
        problem.wait_for()
        watched.picture("page-text-file")
        assert problem.inner_text() == "notes.txt: not an image: no image format is recognised"
        assert not watched.page.locator("#result").is_visible()
        # The browser itself notes that the answer was a 400; nothing else may be wrong.
        assert all("400" in one for one in watched.complaints)

    def test_good_photo_after_a_bad_one(self, watched):
        drop(watched.page, "notes.txt", "text/plain", b"milk, bread")
        watched.page.locator("#problem").wait_for()
        drop(watched.page, "tulip.jpg", "image/jpeg", tulip())
        watched.page.locator("#result").wait_for()
        assert not watched.page.locator("#problem").is_visible()

    def test_too_large_a_file_is_not_even_sent(self, watched):
        watched.page.evaluate("() => take([new File([new Uint8Array(17 * 2 ** 20)], 'huge.jpg')])")
        problem = watched.page.locator("#problem")
        problem.wait_for()
        assert "17 MiB is too large; at most 16 MiB" in problem.inner_text()

    def test_chosen_by_keyboard(self, watched, tmp_path):
        path = tmp_path / "tulip.jpg"
        path.write_bytes(tulip())
        page = watched.page
        # Chooser windows are intercepted from here on, well before the key is pressed.
        page.on("filechooser", lambda _: None)
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.id") == "choose"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(path)
        page.locator("#result").wait_for()

    def test_photo_from_the_camera(self, watched):
        watched.page.locator("#camera").click()
        watched.page.locator("#shoot").wait_for()
        watched.page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
        watched.page.locator("#shoot").click()
        watched.page.locator("#result").wait_for()
        watched.picture("page-camera")
        assert watched.complaints == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_on_a_phone(self, open_page, server, scheme):
        watched = open_page(width=390, height=844, scheme=scheme)
        watched.page.goto(server.address)
        watched.page.get_by_text("It tells daisy").wait_for()
        drop(watched.page, "tulip.jpg", "image/jpeg", tulip())
        watched.page.locator("#result").wait_for()
        watched.picture(f"page-phone-{scheme}")
        assert watched.page.evaluate(OVERFLOW) <= 0
        assert watched.complaints == []
