"""A user to look at: `demo`, with images whose prompts differ and whose pictures are in their own addresses.

All of it follows from a number, so two machines show the same; and it is written as any client's images are.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from primary.gallery import images
from primary.gallery.records import NewImage
from primary.gallery.tables import profile
from primary.postgres import Primary
from primary.write import writing

USER = "demo"
IMAGES = 48

_SUBJECTS = (
    "a tide pool with anemones",
    "a hermit crab in a teacup",
    "an octopus reading a map",
    "a lighthouse keeper",
    "a heron at low water",
    "a market of paper lanterns",
    "a fox asleep in a bookshop",
    "a tram in the rain",
    "a greenhouse on the moon",
    "a violin made of ice",
    "three moons over salt flats",
    "a clockmaker's workshop",
)
_STYLES = (
    "watercolour",
    "35mm photograph",
    "linocut",
    "oil on canvas",
    "pixel art",
    "charcoal",
    "woodblock print",
)
_LIGHTS = ("at dawn", "under sodium lamps", "in thick fog", "by candlelight", "at blue hour", "at noon")
_DETAILS = (
    "wide angle",
    "macro, shallow focus",
    "muted palette",
    "high contrast",
    "soft grain",
    "symmetrical",
)
_NEGATIVES = (None, "text, watermark", "blurry, low contrast", "people, frames, borders")
_MODELS = ("sdxl-1.0", "flux-dev", "dreamshaper-8", "juggernaut-xl")
_SIZES = ((1024, 1024), (832, 1216), (1216, 832), (768, 768), (512, 768))
_SOURCES = ("message_response", "upload", "import")
_FIRST = datetime(2025, 3, 1, 8, tzinfo=UTC)


async def ensure_demo(primary: Primary) -> bool:
    """Make the demo user, unless it was made before; tell whether it was made now.

    A process killed half-way has it finished by the next: the profile, which says that it was made, comes
    last.
    """
    async with primary.transaction() as connection:
        if await connection.scalar(sa.select(profile.c.user_id).where(profile.c.user_id == USER)):
            return False
    async with writing(primary, USER) as write:
        await images.create_many(write, demo_images())
    async with primary.transaction() as connection:
        row = {"user_id": USER, "username": USER, "first_name": "Marina"}
        await connection.execute(insert(profile).values(row).on_conflict_do_nothing())
    return True


def demo_images() -> list[NewImage]:
    """Give the demo user's images, oldest first: the same at every call."""
    choose = random.Random(48)  # noqa: S311  (nothing secret about it)
    moment = _FIRST
    made: list[NewImage] = []
    for number in range(IMAGES):
        moment += timedelta(minutes=choose.randrange(20, 60 * 72))
        subject = _SUBJECTS[number % len(_SUBJECTS)]
        style, light, detail = choose.choice(_STYLES), choose.choice(_LIGHTS), choose.choice(_DETAILS)
        width, height = choose.choice(_SIZES)
        made.append(
            NewImage(
                id=uuid5(NAMESPACE_URL, f"tidepool:demo:{number}"),
                prompt=f"{subject} {light}, {style}, {detail}",
                negative_prompt=choose.choice(_NEGATIVES),
                image_url=_picture(choose, width, height),
                model=choose.choice(_MODELS),
                seed=choose.randrange(2**32),
                steps=choose.choice((20, 25, 30, 40)),
                width=width,
                height=height,
                source=choose.choice(_SOURCES),
                alt_text=f"{subject[0].upper()}{subject[1:]} {light}",
                meta={
                    "sampler": choose.choice(("Euler a", "DPM++ 2M Karras")),
                    "cfg": choose.randrange(3, 12),
                },
                created_at=moment,
            )
        )
    return made


def _picture(choose: random.Random, width: int, height: int) -> str:
    """Draw a small picture of sky, sea and sun as an address that holds it: it shows without a network."""
    hue, sun, horizon = choose.randrange(360), choose.randrange(20, 80), choose.randrange(45, 70)
    tall = 100 * height // width
    waterline = tall * horizon // 100
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 {tall}">'
        f'<linearGradient id="g" x2="0" y2="1"><stop stop-color="hsl({hue},60%,72%)"/>'
        f'<stop offset="1" stop-color="hsl({(hue + 40) % 360},70%,88%)"/></linearGradient>'
        f'<rect width="100" height="{tall}" fill="url(#g)"/>'
        f'<circle cx="{sun}" cy="{waterline}" r="12" fill="hsl({(hue + 180) % 360},80%,70%)"/>'
        f'<rect y="{waterline}" width="100" height="{tall}" fill="hsl({(hue + 200) % 360},45%,38%)"/>'
        "</svg>"
    )
    return "data:image/svg+xml," + quote(svg, safe="=:/(),'")
