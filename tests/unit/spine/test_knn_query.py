import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine.errors import DataError
from spine.knn_query import KnnQuery

FRONT = {
    "text": "a fox",
    "image": None,
    "image_url": None,
    "embedding_input": None,
    "deduplicate": True,
    "use_safety_model": True,
    "use_violence_detector": True,
    "indice_name": "pool",
    "use_mclip": False,
    "aesthetic_score": "9",
    "aesthetic_weight": "0.5",
    "modality": "image",
    "num_images": 40,
    "num_result_ids": 3000,
}
"""What clip-retrieval's own web front sends."""


def test_from_json_reads_what_clip_retrievals_front_sends():
    assert asdict(KnnQuery.from_json(FRONT)) == asdict(
        KnnQuery(
            text="a fox",
            deduplicate=True,
            use_safety_model=True,
            use_violence_detector=True,
            indice_name="pool",
            aesthetic_score=9,
            aesthetic_weight=0.5,
            num_images=40,
            num_result_ids=3000,
        )
    )


def test_to_json_sends_every_field_that_clip_retrieval_reads():
    query = KnnQuery(text="a fox", num_images=40, num_result_ids=3000, indice_name="pool")
    sent = json.loads(json.dumps(query.to_json()))
    assert set(sent) == set(FRONT)
    assert (sent["aesthetic_score"], sent["aesthetic_weight"]) == ("", "")


texts = st.none() | st.text(min_size=1, max_size=20)
queries = st.builds(
    KnnQuery,
    text=st.text(min_size=1, max_size=20),
    image=texts,
    image_url=texts,
    embedding_input=st.none()
    | st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1),
    modality=st.sampled_from(["image", "text"]),
    num_images=st.integers(-5, 10_000),
    num_result_ids=st.integers(1, 10_000),
    indice_name=texts,
    use_mclip=st.booleans(),
    deduplicate=st.booleans(),
    use_safety_model=st.booleans(),
    use_violence_detector=st.booleans(),
    aesthetic_score=st.integers(0, 9),
    aesthetic_weight=st.floats(-10, 10),
)


@given(queries)
def test_a_query_comes_back_as_it_was_sent(query):
    sent = query.to_json()
    assert KnnQuery.from_json(json.loads(json.dumps(sent))).to_json() == sent


@pytest.mark.parametrize(("score", "read"), [(9, 9), ("9", 9), (0, 0), ("0", 0), ("", None), (None, None)])
def test_the_aesthetic_score_may_be_a_number_a_text_or_nothing(score, read):
    body = {"text": "a", "num_images": 1, "aesthetic_score": score, "aesthetic_weight": "0.25"}
    query = KnnQuery.from_json(body)
    assert query.aesthetic_score == read
    assert query.aesthetic_weight == (0.5 if read is None else 0.25)


@pytest.mark.parametrize(
    ("value", "read"),
    [(True, True), (1, True), ("true", True), (False, False), ("false", False), (None, False)],
)
def test_a_flag_written_as_a_text_means_what_it_says(value, read):
    assert KnnQuery.from_json({"text": "a", "num_images": 1, "deduplicate": value}).deduplicate is read


def test_numbers_written_as_texts_are_an_embedding():
    body = {"embedding_input": ["1", 0.5, "-2e-1"], "num_images": 1}
    assert KnnQuery.from_json(body).embedding_input == pytest.approx([1, 0.5, -0.2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": None}, "no query"),
        ({"text": ""}, "no query"),
        ({"text": 5}, "text is 5"),
        ({"text": "x" * 10_001}, "10,001 characters"),
        ({"num_images": None, "num_result_ids": None}, "num_result_ids is missing"),
        ({"num_images": "5"}, "num_images is '5'"),
        ({"num_images": 5.0}, "num_images is 5.0"),
        ({"num_images": True}, "num_images is true"),
        ({"num_result_ids": 0}, "1 to 10,000"),
        ({"num_result_ids": -1}, "1 to 10,000"),
        ({"num_result_ids": 10_001}, "1 to 10,000"),
        ({"num_result_ids": 10**30}, "19 digits or more"),
        ({"num_result_ids": "5"}, "num_result_ids is '5'"),
        ({"num_result_ids": [1]}, "a list of 1"),
        ({"modality": "sound"}, "modality is 'sound'"),
        ({"indice_name": {"a": 1}}, "indice_name is an object"),
        ({"deduplicate": "perhaps"}, "deduplicate is 'perhaps'"),
        ({"deduplicate": 2}, "deduplicate is 2"),
        ({"aesthetic_score": 42, "aesthetic_weight": 1}, "aesthetic_score is 42"),
        ({"aesthetic_score": "abc", "aesthetic_weight": 1}, "aesthetic_score is 'abc'"),
        ({"aesthetic_score": "²", "aesthetic_weight": 1}, "aesthetic_score is"),
        ({"aesthetic_score": True, "aesthetic_weight": 1}, "aesthetic_score is true"),
        ({"aesthetic_score": 9}, "aesthetic_weight is ''"),
        ({"aesthetic_score": 9, "aesthetic_weight": "nan"}, "aesthetic_weight is 'nan'"),
        ({"aesthetic_score": 9, "aesthetic_weight": "much"}, "aesthetic_weight is 'much'"),
        ({"aesthetic_score": 9, "aesthetic_weight": 10**400}, "aesthetic_weight is"),
        ({"embedding_input": []}, "a list of 0"),
        ({"embedding_input": "1,2"}, "embedding_input is '1,2'"),
        ({"embedding_input": [[1.0, 2.0]]}, "POST /knn-batch"),
        ({"embedding_input": [1, None]}, "finite"),
        ({"embedding_input": [1, float("nan")]}, "finite"),
        ({"embedding_input": [1, float("inf")]}, "finite"),
        ({"embedding_input": [1, 1e300]}, "finite"),
        ({"embedding_input": [1, 10**400]}, "no number"),
        ({"embedding_input": [1, "x"]}, "no number"),
        ({"embedding_input": [1, {}]}, "no number"),
        ({"embedding_input": {"a": 1}}, "an object"),
    ],
)
def test_from_json_says_what_is_wrong(change, words):
    with pytest.raises(DataError, match="(?i)" + words.replace("(", r"\(")):
        KnnQuery.from_json(FRONT | {"aesthetic_score": "", "aesthetic_weight": ""} | change)


@pytest.mark.parametrize("body", [None, [], "text", 5, [FRONT]])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(DataError, match="no JSON object"):
        KnnQuery.from_json(body)
