"""An answer that got lost costs one wait, not minutes, however busy the centre is with others."""

import pytest

from tests.delivery.box import TOPICS, Box, noise
from tests.delivery.centre import Centre, Running, until

pytestmark = pytest.mark.broker
FILES = 6
TIMEOUT_S = 0.3


class Forgetful(Centre):
    """Stays silent about the first messages of each kind for a file, as if they had been lost."""

    lost = ()

    def on_file(self, fid, part, payload):
        if (fid, part) in self.lost:
            self.lost.remove((fid, part))
            return
        super().on_file(fid, part, payload)


@pytest.mark.parametrize("part", ["offer", "done"])
def test_a_lost_message_is_asked_for_again_while_others_are_answered(
    store, embedded, tmp_path, part
):
    box = Box(store, tmp_path)
    centre = Forgetful(embedded.port, TOPICS)
    fids = [fid for n in range(FILES) for fid in box.seal(clip_mp4=noise(20_000, n))]
    centre.lost = [(fids[0], part), (fids[3], part)]
    with Running(box.transfers(embedded.port, receipt_timeout_s=TIMEOUT_S)):
        for number in range(FILES, 3 * FILES):  # so that there is always another answer
            until(lambda: len(centre.files) >= FILES // 2)
            box.seal(clip_mp4=noise(20_000, number))
        assert until(box.all_receipted, 20.0)
    assert centre.lost == []
    centre.stop()


def test_a_wait_that_grew_is_forgotten_with_the_connection(store, embedded, tmp_path):
    box = Box(store, tmp_path)
    centre = Forgetful(embedded.port, TOPICS)
    (fid,) = box.seal(clip_mp4=noise(20_000))
    centre.lost = [(fid, "offer")] * 4  # 0.3 + 0.6 + 1.2 + 2.4 s
    worker = box.transfers(embedded.port, receipt_timeout_s=TIMEOUT_S)
    with Running(worker):
        assert until(lambda: len(centre.lost) == 1, 20.0)
        centre.stop()
        embedded.kill()
        embedded.restart()
        centre.start()
        assert until(box.all_receipted, 20.0)
    centre.stop()
