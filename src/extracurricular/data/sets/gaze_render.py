"""Synthetic eye patches with gaze labels, in the shapes of MPIIGaze: 36×60 grey pixels and a pose.

The patches replace the normalised ones of MPIIGaze (Zhang et al., CVPR 2015 and TPAMI 2019), which
may not be passed on. An eyeball turns under two lids. The difficulties of the real task are here
too: persons differ in shape, colour and in the angle between the visible axis and the line of
sight, lids close, frames are blurred, and the crop is never quite in place.

**Angles** are (pitch, yaw) in radians, with the vector that MPIIGaze gives them, in camera axes (x
to the right of the image, y down, z away from the camera)::

    x = -cos(pitch) sin(yaw)    y = -sin(pitch)    z = -cos(pitch) cos(yaw)

Positive pitch looks up in the image, positive yaw looks to its left; (0, 0) looks into the camera.
All patches are of one side, with the inner corner on the left of the image.

**Lengths** in the code are pixels of the patch, with v down and, in depth, towards the camera.
Intensities are linear, 0 for black and 1 for white, until the exposure at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

HEIGHT, WIDTH = 36, 60

# Images are rendered in full chunks of this size: the last digits of vectorised arithmetic can
# depend on where in a tensor a value lies, and an image must not depend on the number of others.
CHUNK = 32

KAPPA = math.radians(1.5)  # standard deviation between the visible axis and the line of sight
POSE_ERROR = math.radians(1.5)  # standard deviation of the recorded head pose
LID_DEPTH = 1.06  # the lids slide on the eyeball: their radius, in eyeball radii
UPPER_FOLLOWS, LOWER_FOLLOWS = 0.7, 0.35  # part of the eye's pitch in the head that a lid follows
SHUT_PART, BLUR_PART = 0.16, 0.13  # images with nearly closed lids, images out of focus
SHADES = (5, 8)  # grid of the shadows that differ from image to image
PORES = (12, 20)  # grid of a person's skin texture

Params: TypeAlias = dict[str, Tensor]  # each [CHUNK, 1, 1], or [1, 1, 1] for a person

# Every value is drawn evenly between two bounds. The order is the order of the draws.
PERSON = {
    "kappa_pitch": (0.0, 1.0),  # quantiles of a normal distribution
    "kappa_yaw": (0.0, 1.0),
    "screen_pitch": (-11.5, -3.5),  # degrees, where the middle of the person's screen is
    "screen_yaw": (-4.0, 4.0),
    "head_pitch": (-4.0, 4.0),  # degrees, how the person tends to hold the head
    "eyeball": (16.3, 18.3),  # radius
    "eye_x": (-0.9, 0.9),  # of the eyeball's centre in the socket
    "eye_y": (-0.9, 0.9),
    "iris": (7.3, 8.5),  # radius
    "iris_albedo": (0.07, 0.36),
    "iris_spokes": (0.05, 0.3),  # contrast of the radial texture
    "iris_phase": (0.0, 6.28),
    "limbus": (0.3, 0.75),  # darkness of the ring around the iris
    "sclera": (0.62, 0.88),
    "skin": (0.28, 0.74),
    "pores": (0.02, 0.06),  # contrast of the skin's texture
    "half_width": (19.5, 23.0),  # from corner to corner, halved
    "inner_y": (0.0, 2.2),  # of the corners, below the eyeball's centre
    "outer_y": (-1.6, 1.4),
    "upper": (23.0, 31.0),  # degrees up to the upper lid, looking ahead
    "lower": (17.0, 24.0),
    "upper_skew": (-0.35, 0.0),  # the upper lid peaks towards the nose,
    "lower_skew": (0.0, 0.35),  # the lower one away from it
    "upper_full": (0.0, 0.6),  # 0 is a parabola; more is rounder
    "crease": (2.8, 6.5),  # above the upper lid
    "crease_dark": (0.08, 0.42),
    "bag": (0.0, 0.2),  # darkness below the eye
    "lashes": (0.35, 0.9),  # darkness
    "lash_length": (1.0, 2.6),
    "lash_phase": (0.0, 6.28),
    "liner": (-0.8, 0.7),  # darkness of the lower rim; painted for the few persons above 0
    "brow_y": (-23.0, -15.0),  # its lower edge, at the middle
    "brow_dark": (0.25, 0.65),
    "brow_bend": (-0.004, 0.008),
}
IMAGE = {
    "look_pitch": (-13.0, 13.0),  # degrees from the middle of the screen
    "look_yaw": (-20.0, 20.0),
    "turn_pitch": (-8.0, 8.0),  # degrees of the head, apart from its following the gaze
    "turn_yaw": (-9.0, 9.0),
    "error_pitch": (0.0, 1.0),  # quantiles of a normal distribution
    "error_yaw": (0.0, 1.0),
    "shut": (0.0, 1.0),  # below SHUT_PART the lids are nearly closed
    "lid_open": (0.8, 1.1),  # aperture of lids that are open
    "lid_shut": (0.0, 0.42),  # aperture of lids that are not
    "pupil": (0.3, 0.58),  # in iris radii
    "light_x": (-0.8, 0.8),  # direction of the light, in depths towards the camera
    "light_y": (-1.1, 0.1),
    "light": (0.15, 0.75),  # part of the light that has a direction
    "slope": (0.0, 0.012),  # lighting gradient, per pixel
    "shadow": (0.03, 0.16),  # contrast of the shadows
    "lid_shadow": (0.2, 0.6),  # of the upper lid, on the eyeball
    "glint": (-0.4, 1.0),  # intensity; none below 0
    "glint_size": (0.5, 1.0),
    "shift_x": (-1.5, 1.5),  # of the crop
    "shift_y": (-1.5, 1.5),
    "roll": (-5.0, 5.0),  # degrees
    "scale": (0.94, 1.06),
    "blurred": (0.0, 1.0),  # below BLUR_PART the image is out of focus
    "blur_sharp": (0.35, 0.8),  # sigma
    "blur_strong": (1.6, 3.2),
    "exposure": (0.3, 0.56),  # mean of the image
    "gamma": (0.7, 1.15),
    "contrast": (0.75, 1.25),
    "noise": (0.006, 0.03),  # standard deviation of the sensor
}


class GazeImages(NamedTuple):
    """Rendered eye patches, person after person.

    Args:
        eye: Patches [N, 1, 36, 60], uint8.
        pose: Head pitch and yaw [N, 2], radians, as a face tracker would report them: within about
            20 degrees of the camera, with an error of 1.5 degrees.
        gaze: Gaze pitch and yaw [N, 2], radians, the label; from -25 to 10 degrees and within 25.
        person: Number of the person [N], int64.
        openness: Part of the iris that the lids leave visible [N], 0 to 1.
        blur: Standard deviation of the Gaussian blur [N], pixels.
    """

    eye: Tensor
    pose: Tensor
    gaze: Tensor
    person: Tensor
    openness: Tensor
    blur: Tensor


def render_gaze(persons: Sequence[int], per_person: int, seed: int = 0) -> GazeImages:
    """Render eye patches of the given persons.

    Image i of person p depends on seed, p and i alone: asking for more persons or more images
    leaves the others as they were.

    Args:
        persons: Numbers of the persons to render, from 0 up and in this order, at least one.
        per_person: Number of images of each person, at least 1.
        seed: Seed of the whole population, at least 0.

    Raises:
        ValueError: There are no persons, or a number is below its least value.
    """
    if len(persons) == 0:
        raise ValueError("persons is empty; at least one person must be rendered")
    if min(persons) < 0:
        raise ValueError(f"persons has {min(persons)}; persons are numbered from 0")
    if per_person < 1:
        raise ValueError(f"per_person is {per_person}; it must be at least 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be at least 0")
    parts = [_render_person(int(person), per_person, seed) for person in persons]
    return GazeImages(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _render_person(person: int, count: int, seed: int) -> GazeImages:
    # Each kind of draw has its own stream, which is filled image by image.
    who, what, pixels = (
        np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, person, stream])))
        for stream in range(3)
    )
    fixed = _draw(who, PERSON, 1)
    pores = torch.from_numpy(who.standard_normal((1, *PORES), np.float32))
    chunks = []
    for _ in range(0, count, CHUNK):
        noise = pixels.standard_normal((CHUNK, HEIGHT * WIDTH + math.prod(SHADES)), np.float32)
        draws = fixed | _draw(what, IMAGE, CHUNK)
        chunks.append(_render_chunk(draws, pores, torch.from_numpy(noise)))
    eye, pose, gaze, openness, blur = (torch.cat(t)[:count] for t in zip(*chunks, strict=True))
    return GazeImages(eye, pose, gaze, torch.full((count,), person), openness, blur)


def _draw(rng: np.random.Generator, bounds: dict[str, tuple[float, float]], count: int) -> Params:
    low, high = np.array(list(bounds.values()), np.float32).T
    drawn = torch.from_numpy(low + (high - low) * rng.random((count, len(low)), np.float32))
    return {name: column[:, None, None] for name, column in zip(bounds, drawn.T, strict=True)}


class _Lids(NamedTuple):
    """The lids' edges, at every pixel [CHUNK, 36, 60]."""

    along: Tensor  # -1 at the inner corner, 1 at the outer
    upper: Tensor  # height below the upper edge
    lower: Tensor  # height below the lower edge


def _render_chunk(p: Params, pores: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
    """Render the eye, pose, gaze, openness and blur of one chunk."""
    gaze, head, pose = _directions(p)
    u, v = _crop_grid(p)
    lids, a, b = _lids(p, gaze, head, u, v)
    visible = _cover(lids.upper) * _cover(-lids.lower)
    ball, iris = _eyeball(p, gaze, a, b, lids)
    openness = (iris * visible).sum((1, 2)) / iris.sum((1, 2))

    scene = torch.lerp(_skin(p, pores, a, b, u, v, lids), ball, visible) * _lashes(p, u, lids)
    pixels, blobs = noise[:, : HEIGHT * WIDTH], noise[:, HEIGHT * WIDTH :]
    scene = scene * (1 + p["shadow"] * _upsample(blobs.reshape(-1, *SHADES)))

    sigma = torch.where(p["blurred"] < BLUR_PART, p["blur_strong"], p["blur_sharp"])
    rows, columns = _smoothing(HEIGHT, HEIGHT, sigma), _smoothing(WIDTH, WIDTH, sigma)
    scene = rows @ scene @ columns.mT
    eye = _expose(p, scene, pixels.reshape(-1, HEIGHT, WIDTH))
    return eye[:, None], pose, gaze[:, :, 0, 0], openness, sigma[:, 0, 0]


def _directions(p: Params) -> tuple[Tensor, Tensor, Tensor]:
    """Return gaze and head [CHUNK, 2, 1, 1] and the recorded pose [CHUNK, 2], in radians."""
    gaze_pitch, gaze_yaw = p["screen_pitch"] + p["look_pitch"], p["screen_yaw"] + p["look_yaw"]
    # The head follows the eyes part of the way.
    head_pitch = 0.4 * (gaze_pitch + 7.5) + p["head_pitch"] + p["turn_pitch"]
    head_yaw = 0.45 * gaze_yaw + p["turn_yaw"]
    gaze = torch.stack([gaze_pitch, gaze_yaw], 1).deg2rad()
    head = torch.stack([head_pitch, head_yaw], 1).deg2rad()
    error = torch.stack([_normal(p["error_pitch"]), _normal(p["error_yaw"])], 1)
    return gaze, head, (head + POSE_ERROR * error)[:, :, 0, 0]


def _crop_grid(p: Params) -> tuple[Tensor, Tensor]:
    """Return each pixel's offset from the middle of the eye's corners, with errors of the crop."""
    y = torch.arange(HEIGHT).view(1, -1, 1) - (HEIGHT - 1) / 2 - p["shift_y"]
    x = torch.arange(WIDTH).view(1, 1, -1) - (WIDTH - 1) / 2 - p["shift_x"]
    cos, sin = p["roll"].deg2rad().cos() / p["scale"], p["roll"].deg2rad().sin() / p["scale"]
    return cos * x + sin * y, cos * y - sin * x


def _lids(
    p: Params, gaze: Tensor, head: Tensor, u: Tensor, v: Tensor
) -> tuple[_Lids, Tensor, Tensor]:
    """Return the lids, and each pixel's offset from the eyeball's centre."""
    radius, half, zero = p["eyeball"], p["half_width"], torch.zeros_like(p["shut"])
    inner_x, inner_y = _turn(head, -half, p["inner_y"], 0.5 * radius)
    outer_x, outer_y = _turn(head, half, p["outer_y"], 0.3 * radius)
    middle_x, middle_y = (inner_x + outer_x) / 2, (inner_y + outer_y) / 2

    # Lids slide with the eye; these are the elevations of their edges from the ball's middle.
    eye_pitch = (gaze - head)[:, 0].rad2deg()
    up = (p["upper"] + UPPER_FOLLOWS * eye_pitch).deg2rad()
    down = (p["lower"] - LOWER_FOLLOWS * eye_pitch).deg2rad()
    lid = LID_DEPTH * radius
    _, top = _turn(head, zero, -lid * up.sin(), lid * up.cos())
    _, bottom = _turn(head, zero, lid * down.sin(), lid * down.cos())

    along = 2 * u / (outer_x - inner_x)
    line = along * (outer_y - inner_y) / 2
    arch = 1 - along.square()
    # The cornea pushes the upper lid up where it stands.
    skew = p["upper_skew"] - 0.5 * (gaze - head)[:, 1].sin()
    raised = arch * (1 + skew * along) * (1 + p["upper_full"] * along.square())
    upper = line + (top - middle_y) * raised
    lower = line + (bottom - middle_y) * arch * (1 + p["lower_skew"] * along)
    aperture = torch.where(p["shut"] < SHUT_PART, p["lid_shut"], p["lid_open"])
    lids = _Lids(along, v - torch.lerp(lower, upper, aperture), v - lower)
    return lids, u + middle_x - p["eye_x"], v + middle_y - p["eye_y"]


def _turn(head: Tensor, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a point of the head, z towards the camera, and return its place in the image."""
    pitch, yaw = head[:, 0], head[:, 1]
    depth = y * pitch.sin() + z * pitch.cos()
    return x * yaw.cos() - depth * yaw.sin(), y * pitch.cos() - z * pitch.sin()


def _eyeball(p: Params, gaze: Tensor, a: Tensor, b: Tensor, lids: _Lids) -> tuple[Tensor, Tensor]:
    """Return the eyeball without its lids, and the part of each pixel that the iris covers."""
    radius, size = p["eyeball"], p["iris"]
    depth = (radius.square() - a.square() - b.square()).clamp_min(0).sqrt()
    kappa = torch.stack([_normal(p["kappa_pitch"]), _normal(p["kappa_yaw"])], 1)
    pitch, yaw = (gaze + KAPPA * kappa).unbind(1)
    # The pixel in axes that turn with the eye: (q, r) is its offset from the visible axis.
    q = a * yaw.cos() + depth * yaw.sin()
    r = b * pitch.cos() + (depth * yaw.cos() - a * yaw.sin()) * pitch.sin()
    off = (q.square() + r.square()).sqrt()

    iris = _cover((size - off) / 1.4)  # the limbus is soft
    ring = _exp(-((off - 0.95 * size) / (0.14 * size)).square())
    angle = torch.atan2(r, q)
    spokes = (7 * angle + p["iris_phase"]).cos() + (12 * angle + 3 * p["iris_phase"]).cos()
    colour = p["iris_albedo"] * (1 + p["iris_spokes"] * spokes / 2) * (1 - p["limbus"] * ring)
    colour = colour * (1 + 0.3 * (b - a * p["light_x"]) / size * (p["iris_albedo"] > 0.15))
    colour = torch.lerp(colour, torch.full_like(colour, 0.025), _cover(p["pupil"] * size - off))

    white = p["sclera"] * (0.45 + 0.55 * depth / radius)  # the ball turns away at the corners
    white = white * (1 + 0.2 * p["light"] * (p["light_x"] * a + p["light_y"] * b) / radius)
    veins = (0.9 * a + 0.7 * b + 2 * p["iris_phase"]).sin() * (0.5 * a - 0.9 * b).sin()
    white = white * (1 + 0.05 * veins)
    caruncle = _exp(-((lids.along + 0.93) / 0.13).square())
    white = torch.lerp(white, 0.75 * p["skin"].expand_as(white), 0.8 * caruncle)

    ball = torch.lerp(white, colour, iris)
    ball = ball * (1 - p["lid_shadow"] * _exp(-lids.upper.clamp_min(0) / 2.5))
    ball = ball * (1 - 0.15 * _exp(lids.lower.clamp_max(0) / 1.5))

    # The cornea is a mirror, about one and a half times as curved as the eyeball.
    x = a + radius * (0.45 * yaw.sin() * pitch.cos() - 0.32 * p["light_x"])
    y = b + radius * (0.45 * pitch.sin() - 0.32 * p["light_y"])
    glint = _exp(-(x.square() + y.square()) / (2 * p["glint_size"].square()))
    return ball + p["glint"].clamp_min(0) * glint * iris, iris


def _skin(
    p: Params, pores: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor, lids: _Lids
) -> Tensor:
    """Return the skin around the eye, as if the lids had no opening."""
    ball = 1.25 * p["eyeball"]
    far = (a.square() + b.square()) / ball.square()
    # The ball bulges under the lids; away from it the skin faces the camera.
    bulge = _exp(-1.2 * far.square())
    facing = (1 - 0.6 * far).clamp_min(0.2).sqrt()
    shade = facing + (p["light_x"] * a + p["light_y"] * b) / ball
    norm = (1 + p["light_x"].square() + p["light_y"].square()).sqrt()
    lit = torch.lerp(torch.full_like(shade, 0.85), shade.clamp_min(0) / norm, bulge)
    skin = p["skin"] * (1 + p["light"] * (lit - 0.8))

    above, arch = -lids.upper, (1 - lids.along.square()).clamp_min(-0.5)
    fold = above - p["crease"] * (0.55 + 0.45 * arch)
    inside = (1.25 - lids.along.abs()).mul(3).clamp(0, 1)
    crease = _exp(-(fold / torch.where(fold > 0, 2.2, 0.9)).square())
    bag = _exp(-((lids.lower - 5.5) / 2.0).square())
    nose = torch.sigmoid((-u - 25) / 3)
    skin = skin * (1 - p["crease_dark"] * crease * inside) * (1 - p["bag"] * bag * inside)
    skin = skin * (1 - 0.3 * nose) * (1 + p["pores"] * _upsample(pores))
    return torch.lerp(skin, 0.08 * torch.ones_like(skin), p["brow_dark"] * _brow(p, u, v))


def _brow(p: Params, u: Tensor, v: Tensor) -> Tensor:
    """Return the part of each pixel that the eyebrow covers, with slanting hairs."""
    edge = v - p["brow_y"] - p["brow_bend"] * (u + 4).square()
    hairs = 0.8 + 0.2 * (1.1 * u + 0.8 * v + p["lash_phase"]).sin()
    return torch.sigmoid(-edge / 1.1) * torch.sigmoid((edge + 7) / 1.2) * hairs


def _lashes(p: Params, u: Tensor, lids: _Lids) -> Tensor:
    """Return the part of the light that the lashes and the rims of the lids let through."""
    within = ((1.04 - lids.along.abs()) * 8).clamp(0, 1)
    above = -lids.upper
    core = _exp(-((above - 0.5) / 0.9).square())
    # Lashes fan outwards and are longer at the outer corner.
    length = p["lash_length"] * (1 + 0.35 * lids.along)
    fan = (2.1 * (u - 0.5 * above * lids.along) + p["lash_phase"]).cos()
    hairs = _exp(-above.clamp_min(0) / length) * (above > 0) * (0.35 + 0.25 * fan)
    rim = _exp(-((lids.lower - 0.6) / 0.8).square())
    lower = 0.18 + p["liner"].clamp_min(0)
    upper = p["lashes"] * torch.maximum(core, hairs)
    return (1 - within * upper) * (1 - within * lower * rim)


def _expose(p: Params, scene: Tensor, noise: Tensor) -> Tensor:
    """Return the bytes that the camera makes of linear intensities."""
    scene = scene * (1 + p["slope"] * _ramp(p))
    scene = scene.clamp_min(0) * (0.24 / scene.mean((1, 2), keepdim=True))
    tone = scene.pow(p["gamma"] / 1.6)
    mean = tone.mean((1, 2), keepdim=True)
    tone = p["exposure"] + p["contrast"] * (tone - mean) + p["noise"] * noise
    return (255 * tone).round().clamp(0, 255).to(torch.uint8)


def _ramp(p: Params) -> Tensor:
    """Return a plane that falls away from the light, in pixels."""
    y = torch.arange(HEIGHT).view(1, -1, 1) - (HEIGHT - 1) / 2
    x = torch.arange(WIDTH).view(1, 1, -1) - (WIDTH - 1) / 2
    return p["light_x"] * x + p["light_y"] * y


def _exp(x: Tensor) -> Tensor:
    """Return the exponential; nothing below e^-80, as processors are slow at denormal numbers."""
    return x.clamp_min(-80).exp()


def _cover(inside: Tensor) -> Tensor:
    """Return the part of a pixel in a shape whose edge is ``inside`` pixels from its middle."""
    return (inside + 0.5).clamp(0, 1)


def _normal(quantile: Tensor) -> Tensor:
    normal: Tensor = torch.special.ndtri(quantile.clamp(0.002, 0.998))
    return normal


def _smoothing(to: int, of: int, sigma: Tensor) -> Tensor:
    """Return matrices [N, to, of] of Gaussian averages; sigma [N, 1, 1], in finer cells."""
    at = (torch.arange(to) + 0.5) * max(1.0, of / to)
    cells = (torch.arange(of) + 0.5) * max(1.0, to / of)
    weights = _exp(-((at[:, None] - cells) / sigma).square() / 2)
    return weights / weights.sum(2, keepdim=True)


def _upsample(grid: Tensor) -> Tensor:
    """Return smooth noise [N, 36, 60] from standard normal draws on a coarse grid [N, h, w]."""
    height, width = grid.shape[1:]
    rows = _smoothing(HEIGHT, height, torch.full((1, 1, 1), 0.6 * HEIGHT / height))
    columns = _smoothing(WIDTH, width, torch.full((1, 1, 1), 0.6 * WIDTH / width))
    return rows @ grid @ columns.mT
