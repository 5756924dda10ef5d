"""Run names for people to say and remember: a positive adjective and a noun, as in ``happy-narwhal``."""

from __future__ import annotations

import hashlib
import random

_ADJECTIVES = """
    able active adept agile airy alert amber amiable ample apt ardent artful attentive avid aware balanced balmy
    beaming blissful blithe bold bonny brave breezy bright brilliant brisk bubbly buoyant calm candid capable
    careful caring cheerful cheery chipper civil clean clear clever comfy cool cordial cosmic cosy courteous
    crafty creative crisp curious dapper daring dashing dazzling dear deft delightful diligent dreamy dynamic
    eager earnest easy elegant eloquent eminent energetic fair faithful famous fearless festive fine fleet
    fluent fond frank free fresh friendly frugal gallant generous gentle gifted glad gleaming glowing golden
    graceful gracious grand grateful great green groovy handy happy hardy harmonic hearty helpful honest hopeful
    humble ideal inventive jolly jovial joyful joyous jubilant just keen kind leafy light likeable lively
    logical lovely loyal lucid lucky luminous magical majestic mellow merry mighty mindful mirthful modest neat
    nice nimble noble novel open optimal orderly patient peaceful peachy perky playful pleasant plucky poetic
    poised polished polite precise pretty prime prompt proud prudent quick quiet quirky radiant rapid ready
    refined regal relaxed reliable robust rosy savvy serene sharp shining silky sincere skilful sleek smart
    smiling smooth snappy snug solar solid sparkling spirited splendid spry stalwart steady stellar sterling
    strong sturdy sublime sunny superb sweet swift talented thankful thorough thoughtful thrifty tidy
    timely tranquil trusty upbeat valiant vibrant vivid warm welcome whimsical winsome wise witty
    wonderful worthy zany zealous zesty zippy
"""
_NOUNS = """
    acorn albatross almond alpaca anchor antelope apple apricot aspen aster aurora avocado badger bamboo banjo
    basil beacon beech birch bison blossom bluebell bobcat brook buttercup butterfly canary canyon
    caribou cedar cello chestnut chickadee chipmunk cinnamon clover comet condor coral cosmos cove crane
    cricket crocus crystal cypress daffodil dahlia daisy dawn deer delta dolphin dove dragonfly eagle elk elm
    ember falcon fern ferret fiddle finch firefly fjord flamingo flute forest fountain fox foxglove galaxy
    garden gazelle gecko geyser giraffe glacier goldfinch grove gull hamster harbor harp hazel hedgehog heron
    hibiscus hickory hill hornbill hummingbird ibex ibis iris island ivy jasmine jay juniper kestrel kingfisher
    kite kiwi koala lagoon lake lantern larch lark laurel lavender lemon lemur lighthouse lilac lily linden
    llama lotus lupin lynx lyre magnolia mallard manatee mango maple marigold marmot marten meadow melody meteor
    mimosa mint mongoose moon moose narwhal nebula nectar newt nightingale oak oasis ocean ocelot olive orbit
    orchard orchid oriole osprey otter owl palm panda panther papaya peacock pear pebble pelican penguin
    peony petrel petunia phoenix piano pine planet plover plum pond poplar poppy porpoise prairie primrose
    puffin quail quartz quill quokka rabbit raccoon rainbow raven reef river robin rosemary rowan saffron salmon
    sandpiper sapphire sequoia shore skylark snowdrop snowflake sparrow spring sprout spruce squirrel star
    starling stork stream summit sunflower sunrise swan sycamore tangerine tapir teal thistle thrush
    thyme topaz toucan tulip turtle valley vanilla violet violin walnut walrus warbler waterfall willow wombat
    wren yak zebra zephyr zinnia
"""
ADJECTIVES = tuple(_ADJECTIVES.split())
NOUNS = tuple(_NOUNS.split())


def run_name(seed: str | None = None) -> str:
    """An adjective-noun pair: always the same one for a ``seed`` (a run's key), else a new one.

    Drawn from a private generator: a global ``random.seed``, which trainers set, must neither decide the
    name nor be disturbed by it.
    """
    if seed is None:
        generator: random.Random = random.SystemRandom()
    else:
        generator = random.Random(int.from_bytes(hashlib.sha256(seed.encode()).digest()))
    return f"{generator.choice(ADJECTIVES)}-{generator.choice(NOUNS)}"
