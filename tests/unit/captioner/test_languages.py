import pytest

from captioner.languages import UNKNOWN, language
from captioner.quality import measured
from tests.unit.captioner.test_quality import BOX, CONTAINER, POSING


@pytest.mark.parametrize("caption", [POSING, BOX, CONTAINER])
def test_captions_as_they_were_published_are_english(caption):
    assert language(caption) == measured(caption).language == "en"


@pytest.mark.parametrize(
    ("code", "caption"),
    [
        ("en", "two small green stars at the top left; the background is striped navy. The style is grainy."),
        ("en", "a shop with the sign 'Bäckerei Müller' above its door; a man stands beside it in the rain"),
        ("de", "ein Mann mit blauem Hemd steht vor einer weißen Wand und lächelt in die Kamera"),
        ("fr", "un homme vêtu d'une chemise bleue se tient devant un mur blanc et sourit"),
        ("es", "un anillo rojo grande sobre un fondo blanco con una estrella verde"),
        ("it", "un grande anello rosso su uno sfondo bianco con una stella verde"),
        ("nl", "een rode ring op een witte achtergrond, met een kleine groene ster daarnaast"),
        ("pl", "duży czerwony pierścień na białym tle z zieloną gwiazdą"),
        ("ru", "человек в синей рубашке стоит перед белой стеной и улыбается"),
        ("zh", "一个穿着蓝色衬衫的男人站在白墙前"),
        ("ja", "白い背景に大きな赤い輪と緑の星がある"),
        ("ar", "حلقة حمراء كبيرة على خلفية بيضاء مع نجمة خضراء"),
    ],
)
def test_a_sentence_is_known_by_its_language(code, caption):
    assert language(caption) == code


@pytest.mark.parametrize("caption", ["", "red star", "one large red ring", "12 34 !!", "plage"])
def test_of_too_few_words_the_language_is_unknown(caption):
    assert language(caption) == UNKNOWN == "und"


def test_upper_case_is_not_another_language():
    assert language(CONTAINER.upper()) == "en"
