"""Tables of pictures and of clips with captions: all of one stay together, and kinds are not mixed."""

import pytest
from PIL import Image

from throughtime.data.captioned import list_seen, read_captioned, read_seen
from throughtime.errors import DataError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def halves(left=RED, right=BLUE, size=(16, 16)):
    """A picture of two colours side by side."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def saved(path, image=None):
    (image or halves()).save(path)
    return path


def table(folder, rows):
    path = folder / "table.csv"
    path.write_text("image,caption\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_rows_of_one_picture_are_its_captions(tmp_path):
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in/a.png"), saved(tmp_path / "in/b.jpg", halves(GREEN))
    path = table(tmp_path, ["in/a.png,one", "in/b.jpg,two ", "./in/a.png,three", "in/../in/a.png,one"])
    part = read_captioned([path], 8)
    assert [p.name for p in part.paths] == ["a.png", "b.jpg"]
    assert part.captions == [["one", "three", "one"], ["two"]]
    assert tuple(part.pixels[0][:, 0, 0]) == RED
    assert part.select([1]).captions == [["two"]] and part.select([1]).pixels[0].shape == (3, 8, 8)


def test_the_same_data_have_the_same_digest_wherever_they_lie(tmp_path):
    digests = []
    for name, colour, caption in (("a", RED, "x"), ("b", RED, "x"), ("c", GREEN, "x"), ("d", RED, "y")):
        (tmp_path / name).mkdir()
        saved(tmp_path / name / "a.png", halves(colour))
        digests.append(read_captioned([table(tmp_path / name, [f"a.png,{caption}"])], 8).digest)
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_pictures_may_lie_in_a_folder_of_their_own(tmp_path):
    (tmp_path / "photographs").mkdir()
    saved(tmp_path / "photographs/a.png")
    path = table(tmp_path, ["a.png,one"])
    with pytest.raises(
        DataError, match=r"a.png is not there: paths in a table go from its folder, or --folder"
    ):
        read_captioned([path], 8)
    assert len(read_captioned([path], 8, folder=tmp_path / "photographs")) == 1


def test_damaged_pictures_are_refused_or_left_out_with_their_number(tmp_path, caplog):
    saved(tmp_path / "a.png")
    half = saved(tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(half[: len(half) // 2])
    (tmp_path / "c.png").write_bytes(b"")
    path = table(tmp_path, ["a.png,one", "b.png,two", "c.png,three"])
    with pytest.raises(
        DataError, match=r"2 of 3 pictures cannot be read; the first: .*table.csv, line 3: .*b.png"
    ):
        read_captioned([path], 8)
    part = read_captioned([path], 8, skip_damaged=True)
    assert part.captions == [["one"]]
    assert "2 of 3 pictures cannot be read" in caplog.text and "left out" in caplog.text
    with pytest.raises(DataError, match="cannot be read"):
        read_captioned([table(tmp_path, ["b.png,two", "c.png,x"])], 8, skip_damaged=True)


def test_rows_without_caption_or_picture(tmp_path, caplog):
    saved(tmp_path / "a.png")
    assert len(read_captioned([table(tmp_path, ["a.png,one", "b.png, "])], 8)) == 1
    assert "1 of 2 rows have no caption" in caplog.text and "line 3" in caplog.text
    with pytest.raises(DataError, match=r"2 of 2 rows have no caption.*column caption"):
        read_captioned([table(tmp_path, ["a.png,", "a.png,"])], 8)
    with pytest.raises(DataError, match=r"line 3: image is ''.*path of its file"):
        read_captioned([table(tmp_path, ["a.png,one", ",two"])], 8)
    with pytest.raises(DataError, match='no column "picture"'):
        read_captioned([table(tmp_path, ["a.png,one"])], 8, picture="picture")


def test_a_file_names_pictures_in_three_ways(tmp_path):
    own = saved(tmp_path / "a.png")
    assert list_seen(own, "image") == [own]
    listed = tmp_path / "list.txt"
    listed.write_text("a.png\n\nin/b.png\n")
    assert list_seen(listed, "image") == [own, tmp_path / "in/b.png"]
    path = table(tmp_path, ["a.png,one", "in/b.png,two", "a.png,three"])
    assert list_seen(path, "image") == [own, tmp_path / "in/b.png"]
    assert list_seen(path, "image", tmp_path / "in") == [tmp_path / "in/a.png", tmp_path / "in/in/b.png"]


def filmed(folder, count=3):
    folder.mkdir(parents=True)
    for k in range(count):
        saved(folder / f"{k}.png")
    return folder


def test_clips_have_captions_too(tmp_path):
    filmed(tmp_path / "clips/a"), filmed(tmp_path / "clips/b", 2)
    path = table(tmp_path, ["clips/a,one", "clips/b,two", "clips/a,three"])
    part = read_captioned([path], 8)
    assert part.clips and [each.shape for each in part.pixels] == [(3, 3, 8, 8), (2, 3, 8, 8)]
    assert part.captions == [["one", "three"], ["two"]]
    assert not read_captioned([table(tmp_path, ["clips/a/0.png,one"])], 8).clips


def test_pictures_and_clips_are_not_mixed(tmp_path):
    filmed(tmp_path / "clip"), saved(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"line 3: .*a\.png is no clip, and clips are read here: give one kind"
    ):
        read_captioned([table(tmp_path, ["clip,one", "a.png,two"])], 8)
    with pytest.raises(DataError, match=r"clip is a clip, and pictures are read here: give one kind"):
        read_seen([tmp_path / "clip"], False, 8)


def test_a_clip_names_itself(tmp_path):
    assert list_seen(filmed(tmp_path / "clip"), "clip") == [tmp_path / "clip"]
