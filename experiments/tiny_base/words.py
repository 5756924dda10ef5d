"""Strings the corpus talks about: common words, pronounceable pseudo-words and random letters, in several cases."""

from random import Random

_COMMON_TEXT = """
    able about above act add age air all also and animal answer any apple area arm art ask atom aunt baby back bad
    bag ball band bank base bath bean bear beat bed bee bell best big bird black blood blue board boat body bone book
    box boy brain branch bread brick bridge bright bring broad brother brown build burn bus button cake call camp can
    captain car card care carry case cat cause cave cell centre chain chair chance change chart cheese child choice
    circle city class clean clear climb clock cloud coast coat cold colour come common cook copper corn cotton could
    count country course cover cow cream cross cry cup dance dark day deep desert desk dinner doctor dog door double
    dream dress drink drive drop dry duck dust each ear early earth east easy egg eight empty end engine enough even
    every example eye face fact family far farm fast father feel fence few field fight final find finger fire fish
    five flat floor flower fly follow food foot forest forget fork form four fox free fresh friend from fruit full
    game garden gate gift girl give glass goat gold good grain grand grass great green ground group grow guess hair
    half hand happy hard hat have head hear heart heavy help here high hill history hold hole home honey hope horse
    hot hour house how human hundred ice idea inch iron island jar job join jump just keep key kind king kitchen
    knee know lake lamp land large last late laugh law lead leaf learn left leg lemon letter level light line lion
    list little live long look lot loud love low lunch machine make man many map mark market matter meal mean measure
    meat meet metal milk mind minute mirror money moon morning mother mountain mouse mouth move much music nail name
    near neck need nest never new next night nine noise none north nose note number ocean off often oil old once one
    onion only open orange order other our out over own page paint pair paper parent part party past path peace pen
    people pepper piano picture piece pig place plain plan plant plate play please pocket point pond poor potato
    power press price print pull purple push queen question quick quiet rabbit rain reach read ready real red rest
    rice rich ride right ring river road rock roof room root rope rose round row rule run sad safe sail salt sand
    school science sea season seat second see seed seven shape sheep ship shirt shoe shop short shoulder show side
    silver simple sing sister six size skin sky sleep slow small smile snake snow soap soft soil some son song soon
    sound soup south space spoon spring square stand star start steel step stick stone stop store storm story street
    strong student sugar summer sun sure sweet swim table tail take talk tall taste teach team tell ten tent test
    thank that their thin thing think three through thumb tiger time tiny today tomato tone tool tooth top touch town
    toy track train travel tree triangle true trust turn two uncle under until use valley very village visit voice
    wait walk wall want war warm wash watch water wave way weak wear weather week weight west wheat wheel when where
    white who wide wild win wind window wing winter wire wise with woman wonder wood wool word work world worm write
    year yellow yes young zebra zero zoo"""
COMMON = tuple(_COMMON_TEXT.split())

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ONSETS = (*"bcdfghjklmnprstvwz", "br", "ch", "cl", "dr", "fl", "gr", "pl", "qu", "sh", "sl", "sp", "st", "th", "tr")
_VOWELS = (*"aaeeiioouy", "ai", "ea", "ee", "oo", "ou")
_CODAS = ("", "", "", "n", "r", "s", "t", "l", "m", "d", "ck", "nd", "st", "ng", "x")


def pseudo_word(rng: Random, length: int) -> str:
    """A pronounceable lower-case string of exactly ``length`` letters."""
    text = ""
    while len(text) < length:
        text += rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
    return text[:length]


def random_letters(rng: Random, length: int) -> str:
    """``length`` lower-case letters; a few come from a small alphabet, so that repeated letters occur often."""
    alphabet = _LETTERS if rng.random() < 0.8 else rng.sample(_LETTERS, 3)
    return "".join(rng.choice(alphabet) for _ in range(length))


def lower_word(rng: Random, shortest: int = 1, longest: int = 12) -> str:
    """A lower-case string of ``shortest`` to ``longest`` letters."""
    kind = rng.random()
    if kind < 0.25:
        word = rng.choice(COMMON)
        if shortest <= len(word) <= longest:
            return word
    # Middle lengths are the most useful; the triangular draw still reaches both ends.
    length = round(rng.triangular(shortest, longest, min(max(5, shortest), longest)))
    return pseudo_word(rng, length) if kind < 0.6 else random_letters(rng, length)


def recase(rng: Random, word: str, lower: float = 0.6) -> str:
    """``word`` unchanged with probability ``lower``, else in upper, title or random case."""
    kind = rng.random()
    if kind < lower:
        return word
    rest = (kind - lower) / (1 - lower)
    if rest < 0.45:
        return word.upper()
    if rest < 0.65:
        return word.title()
    return "".join(letter.upper() if rng.random() < 0.5 else letter for letter in word)


def any_word(rng: Random, shortest: int = 1, longest: int = 12) -> str:
    """A string of letters in any case."""
    return recase(rng, lower_word(rng, shortest, longest))
