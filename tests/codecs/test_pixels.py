"""Pictures of every mode, depth and orientation become the pixels that a person sees."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sanbu.codecs.pixels import (
    PictureError,
    Scale,
    area_mean,
    as_bytes,
    channels_first,
    fit,
    on_white,
    read_pixels,
    read_shape,
    resize,
    scale_of,
)

UPRIGHT = {  # what each EXIF orientation asks for, in NumPy, after the table of the EXIF standard
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def drawn(seed, *shape, high=256, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def blended(values, opacity):
    a = opacity / 255 if values.ndim == 2 else opacity[..., None] / 255
    return np.rint(values * a + 255 * (1 - a))


def palette(seed, size, clear=None):
    """A palette picture of eight colours, and its pixels [H, W, 3]."""
    indices, colours = drawn(seed, *size, high=8), drawn(seed + 1, 8, 3)
    indices.flat[:8] = range(8)
    picture = Image.frombytes("P", size[::-1], indices.tobytes())
    picture.putpalette(colours.tobytes())
    shown = colours[indices]
    if clear is not None:
        picture.info["transparency"] = clear
        shown = np.where((indices == clear)[..., None], 255, shown)
    return picture, shown


def made(mode, seed, size):
    """A picture of a mode, and what a person sees of it, before it is turned upright."""
    grey, colour, opacity = drawn(seed, *size), drawn(seed, *size, 3), drawn(seed + 1, *size)
    if mode == "1":
        return Image.fromarray(grey > 127), np.where(grey > 127, 255, 0)
    if mode == "LA":
        return la(grey, opacity), blended(grey, opacity)
    if mode == "RGBA":
        return Image.fromarray(np.dstack((colour, opacity))), blended(colour, opacity)
    if mode == "P":
        return palette(seed, size)
    if mode == "P with a clear colour":
        return palette(seed, size, clear=3)
    if mode == "CMYK":
        picture = Image.fromarray(colour).convert("CMYK")
        return picture, np.asarray(picture.convert("RGB"))
    if mode == "I;16":
        deep = drawn(seed, *size, high=2**16, dtype=np.uint16)
        deep.flat[0] = 2**16 - 1
        return Image.fromarray(deep), deep >> 8
    if mode == "I":
        deep = drawn(seed, *size, high=2**31, dtype=np.int32)
        deep.flat[0] = 2**31 - 1
        return Image.fromarray(deep), deep >> 23
    if mode == "F":
        real = np.random.default_rng(seed).random(size).astype(np.float32)
        return Image.fromarray(real), np.rint(real * 255)
    return (Image.fromarray(grey), grey) if mode == "L" else (Image.fromarray(colour), colour)


def la(grey, opacity):
    picture = Image.fromarray(grey)
    picture.putalpha(Image.fromarray(opacity))
    return picture


FORMATS = {
    "PNG": ("1", "L", "LA", "P", "P with a clear colour", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
}
CASES = [(kind, mode) for kind, modes in FORMATS.items() for mode in modes]


def encoded(picture, kind, orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    more = {"transparency": picture.info["transparency"]} if "transparency" in picture.info else {}
    picture.save(stream, kind, exif=exif, **more)
    return stream.getvalue()


def seen(content):
    pixels = read_pixels("a picture", content)
    return channels_first(on_white(as_bytes("a picture", pixels.values), pixels.opacity))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CASES), st.integers(1, 8), st.integers(0, 10**6), st.tuples(st.integers(3, 9), st.integers(3, 9))
)
def test_every_mode_and_orientation_is_what_a_person_sees(case, orientation, seed, size):
    """Exact, but for the rounding of transparency (one level)."""
    kind, mode = case
    picture, right = made(mode, seed, size)
    content = encoded(picture, kind, orientation)
    right = channels_first(UPRIGHT[orientation](np.asarray(right)))
    found = seen(content)
    assert found.dtype == np.uint8 and found.shape == right.shape == read_shape("a picture", content)
    assert abs(found - right.astype(float)).max() <= (1 if "A" in mode else 0)


def tiff(values, photometric=1, sample=1, order="<"):
    """A TIFF of one strip, as instruments write it."""
    height, width = values.shape
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = 8 * values.dtype.itemsize
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(raw)}
    tags[339] = sample
    listed = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(raw))
    return head + raw + struct.pack(f"{order}H", len(tags)) + listed + struct.pack(f"{order}I", 0)


RAMP = np.linspace(0, 1, 64).reshape(8, 8)
DEEP = {
    "16 bits": (tiff((RAMP * 65535).astype("u2")), (RAMP * 65535).astype(int) >> 8),
    "16 bits, big end first": (tiff((RAMP * 65535).astype("u2"), order=">"), (RAMP * 65535).astype(int) >> 8),
    "16 bits, 0 is white": (tiff((65535 - RAMP * 65535).astype("u2"), 0), None),
    "12 of 16 bits": (tiff((RAMP * 4095).astype("u2")), (RAMP * 4095).astype(int) >> 4),
    "8 of 16 bits": (tiff((RAMP * 255).astype("u2")), (RAMP * 255).astype(int)),
    "32 bits": (tiff((RAMP * (2**32 - 1)).astype("u4")), (RAMP * (2**32 - 1)).astype(int) >> 24),
    "31 bits": (tiff((RAMP * (2**31 - 1)).astype("i4"), sample=2), (RAMP * (2**31 - 1)).astype(int) >> 23),
    "floats to 1": (tiff(RAMP.astype("f4"), sample=3), np.rint(RAMP.astype("f4") * 255)),
    "floats, whole, to 255": (tiff(np.rint(RAMP * 255).astype("f4"), sample=3), np.rint(RAMP * 255)),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_keeps_its_levels(name):
    content, right = DEEP[name]
    found = seen(content)[0]
    assert len(np.unique(found)) == 64 and (np.diff(found.flatten().astype(int)) > 0).all()
    assert right is None or np.array_equal(found, right)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (np.array([[-1.0, 1.0]]), "values from -1 to 1; allowed: integers from 0"),
        (np.array([[0.5, 200.0]]), "values from 0 to 200"),
        (np.array([[np.nan, 1.0]]), "not finite"),
        (np.array([[0, 2**40]]), "at most 32 bits"),
        (np.array([[-5, 5]], np.int16), "values from -5 to 5"),
    ],
)
def test_values_without_a_scale_are_refused(values, line):
    with pytest.raises(PictureError, match=line):
        as_bytes("x.npy", values)


def test_the_scale_is_that_of_the_set():
    dark, bright = np.array([[3]], np.uint16), np.array([[60000]], np.uint16)
    assert scale_of("a set", [dark, bright]) == Scale(16) and scale_of("a set", [dark]) == Scale(8)
    assert as_bytes("x", np.array([True, False])).tolist() == [255, 0]


def test_animations_and_sound_pictures_with_damaged_exif():
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    found = read_pixels("a.gif", stream.getvalue())
    assert found.values.flat[0] == 10 and any("first frame" in remark for remark in found.remarks)
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(stream, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_pixels("b.png", stream.getvalue()).values.shape == (4, 4, 3)


def exact_area(row, after):
    ends, total = np.linspace(0, len(row), after + 1), np.concatenate(([0], row.cumsum()))
    return np.diff(np.interp(ends, np.arange(len(row) + 1), total)) * after / len(row)


@pytest.mark.parametrize(("before", "after"), [(256, 64), (96, 64), (256, 200), (500, 256), (7, 3), (65, 64), (9, 1)])
def test_shrinking_is_the_mean_over_the_exact_area(before, after):
    """Stripes of one pixel, which alias under every filter that takes whole pixels."""
    row = (np.arange(before) % 2) * 255.0
    picture = np.repeat(row[None], before, 0).astype(np.uint8)
    right = exact_area(row, after)
    assert abs(resize(Image.fromarray(picture), (1, after, after))[0, 0] - right).max() <= 0.51
    assert abs(resize(Image.fromarray(picture.T), (1, after, after))[0, :, 0] - right).max() <= 0.51


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(1, 24), st.integers(0, 99))
def test_any_size_is_brought_to_any_size(height, width, tall, wide, seed):
    """An even picture stays even, and no level leaves the range of the stored ones."""
    even = np.full((3, height, width), 77, np.uint8)
    assert (fit(even, (3, tall, wide)) == 77).all() and (fit(even, (1, tall, wide)) == 77).all()
    few = drawn(seed, 1, height, width, high=17)
    found = fit(few, (1, tall, wide), top=16)
    assert found.shape == (1, tall, wide) and found.dtype == np.uint8 and found.max() <= 16


def test_a_crop_without_resizing_copies_pixels():
    values = drawn(0, 3, 16, 17)
    assert np.array_equal(fit(values, (3, 16, 16)), values[:, :, :16])
    assert np.array_equal(area_mean(values, (0, 0), 1.0, (16, 17)), values)
