"""Best of n on a tiny real model: what the votes say becomes pairs of the base's own replies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import ModelError
from core.jobs import ADAPTER, Example, JobSpec, PairExample, Stage
from core.report import read_report
from core.sections import GateSettings
from tests.trainer.rows import DPO, SFT, correction, job_spec, pair, vote
from trainer import effort, scout
from trainer import stage as stages
from trainer.best_of_n import DRAWS, Teacher, learn, turned
from trainer.draws import Drawer, Draws, _Base
from trainer.gate import judge
from trainer.job import run_job
from trainer.keep_out import plain_directions
from trainer.lesson import Lesson, keep_lesson, read_lesson
from trainer.model import load_base, load_tokenizer, load_trained
from trainer.preference import _laid
from trainer.ranked import TEACHER
from trainer.recipes import unpaired
from trainer.sampling import Drawing, draw_replies
from trainer.scoring import Scored, Texts
from trainer.snapshot import write_job
from trainer.states import Overheard, reply_states
from trainer.strength import Strength, choose_strength
from trainer.tokens import make_encoder
from trainer.train import _as_rows

BON = DPO.model_copy(update={"on": "draws", "epochs": 1.0, "batch_size": 2})
VOTED = {"and you there?", "it is as it is"}
SMALL = {
    "draws": 4,
    "ranked_prompts": 8,
    "ranked_pairs": 6,
    "anchors": 2,
    "sample_max_tokens": 24,
    "sample_prompts": 2,
}


def votes(count: int = 16) -> list[Example]:
    """Votes of four people for replies with a question mark."""
    return [
        vote(
            n % 2 == 0,
            person=f"p{n % 4}",
            prompt=f"Q{n}",
            at=n,
            completion="and you there?" if n % 2 == 0 else "it is as it is",
        )
        for n in range(count)
    ]


def teacher(spec: JobSpec) -> Teacher:
    texts = Texts(load_tokenizer(spec), spec.max_length)
    return Teacher(Drawer(spec, load_base(spec).eval(), texts))


def lesson_of(own: Teacher, work: Path) -> Lesson:
    return own.teach(votes(), own.draws(votes(), work / DRAWS, print), print)[0]


def test_a_lesson_is_pairs_of_the_bots_own_replies(tiny_model: Path, tmp_path: Path) -> None:
    """Drawn anew or voted on; kept on disk, the lesson comes back as it was."""
    told: list[float] = []
    spec = job_spec(tiny_model, BON, **SMALL)
    own = teacher(spec)
    draws = own.draws(votes(), tmp_path / DRAWS, told.append)
    held_out = [*votes(24)[16:], pair(), pair(chosen="no, never", rejected="so it is")]
    lesson, _ = own.teach(
        votes(), draws, lambda fraction, _: told.append(1 + fraction), held_out=held_out
    )
    assert lesson.pairs
    assert {pair.person for pair in lesson.pairs} == {TEACHER}
    drawn = {option.text for one in draws.asked for option in one.options}
    said = {text for pair in lesson.pairs for text in (pair.chosen, pair.rejected)}
    assert said <= drawn | VOTED
    assert "and you there?" in {pair.chosen for pair in lesson.pairs}
    assert lesson.figures.p_value < 0.01
    assert (lesson.figures.tested, lesson.figures.accuracy.n) == (26, 16)
    held = own.features(_laid(held_out).said)
    assert np.allclose(lesson.rated, lesson.reward.score(held), atol=1e-6)
    assert lesson.figures.drawn == 32
    assert set(lesson.figures.wrong) == {one.person for one in votes()}
    assert told == sorted(told)
    keep_lesson(tmp_path / "lesson", lesson)
    kept = read_lesson(tmp_path / "lesson")
    assert kept is not None
    assert (kept.pairs, kept.figures) == (lesson.pairs, lesson.figures)
    assert kept.rated == lesson.rated
    assert np.array_equal(kept.reward.weights, lesson.reward.weights)
    assert read_lesson(tmp_path / "none") is None
    (tmp_path / "lesson" / "rated.json").unlink()  # as an older version left it
    assert read_lesson(tmp_path / "lesson") is None
    keep_lesson(tmp_path / "lesson", lesson)
    assert read_lesson(tmp_path / "lesson") is not None


def test_a_contrary_person_teaches_what_all_others_do(tiny_model: Path, tmp_path: Path) -> None:
    """Ten votes the other way round give the lesson they give the right way round, to the letter:
    pairs, what was voted on among them, and the reward.
    """
    spec = job_spec(tiny_model, BON, **SMALL)
    own, honest = teacher(spec), votes(26)
    spoilt = [turned(one) if n >= 16 else one for n, one in enumerate(honest)]
    lessons = []
    for said in (honest, spoilt):
        loud = [
            one.model_copy(update={"person": "loud"}) if n >= 16 else one
            for n, one in enumerate(said)
        ]
        lessons.append(own.teach(loud, own.draws(loud, tmp_path / DRAWS, print), print)[0])
    right, wrong = lessons
    assert (right.figures.contrary, wrong.figures.contrary) == ([], ["loud"])
    assert wrong.pairs == right.pairs
    assert np.array_equal(wrong.reward.weights, right.reward.weights)
    assert wrong.figures.accuracy == right.figures.accuracy
    loud, ann = correction(person="loud"), correction(person="ann")
    assert wrong.imitated([loud, ann]) == [ann]
    assert right.imitated([loud, ann]) == [loud, ann]
    assert wrong.imitated([loud]) == [loud]  # a stage with nothing to imitate could not run


def test_where_votes_are_about_length_a_strength_is_heard_at_what_people_asked(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Otherwise at the prompts that are taught, half as many, each once."""
    lesson = lesson_of(teacher(job_spec(tiny_model, BON, **SMALL)), tmp_path)
    twice = [*votes(), *votes()]
    asked = [list(one.prompt) for one in votes()]
    assert lesson.figures.about_length
    heard = [list(prompt) for prompt in lesson.heard(twice, 6, seed=0)]
    assert len(heard) == 12 == len([prompt for prompt in asked if prompt in heard])
    assert len(lesson.heard(twice, 99, seed=0)) == len(asked)
    other = lesson.figures.model_copy(update={"about_length": False})
    taught = replace(lesson, figures=other).heard(twice, 2, seed=0)
    assert taught == list({str(one.prompt): one.prompt for one in lesson.pairs}.values())[:2]


def test_turned_round_a_pair_has_its_sides_changed_and_a_correction_stays() -> None:
    """Turned twice, all is as before."""
    both = pair(chosen="yes", rejected="no").model_copy(update={"rejected_complete": False})
    other = turned(both)
    assert isinstance(other, PairExample)
    assert (other.chosen, other.rejected) == ("no", "yes")
    assert (other.chosen_complete, other.rejected_complete) == (False, True)
    assert turned(other) == both
    assert turned(correction()) == correction()


@pytest.mark.parametrize("ends", [frozenset[int](), frozenset(range(0, 259, 5))])
def test_states_overheard_while_drawing_are_those_of_the_finished_reply(
    tiny_model: Path, ends: frozenset[int]
) -> None:
    """What is averaged token by token equals a pass over the reply, but for a last token that was
    never passed on; a reply that ended hears no more while its row waits to be taken out.
    """
    own = teacher(job_spec(tiny_model, BON))
    ids = [own.drawer.texts.prompt([{"role": "user", "content": f"Hi {n}"}]) for n in range(24)]
    drawing = Drawing(end_ids=ends, max_tokens=9, temperature=1.0, seed=1)

    with Overheard(own.drawer.causal, len(ids)) as heard:
        drawn = draw_replies(_Base(own.drawer.causal), "base", ids, drawing, on_token=heard.heard)
    assert any(one.finished for one in drawn) == bool(ends)
    rows = [
        Scored(p, one.token_ids if one.finished else one.token_ids[:-1])
        for p, one in zip(ids, drawn, strict=True)
    ]
    said = [place for place, row in enumerate(rows) if row.reply_ids]
    found = reply_states(own.drawer.causal, [rows[place] for place in said])
    assert np.allclose(heard.averages()[said], found, atol=1e-4)


def test_a_job_learns_from_ranked_draws(tiny_model: Path, tmp_path: Path) -> None:
    """It trains on the pairs and reports what it found in the votes."""
    directory = tmp_path / "job"
    write_job(directory, job_spec(tiny_model, BON, **SMALL), votes(), votes(8))
    run_job(directory)
    report = read_report(directory)
    assert (directory / ADAPTER).is_dir()
    assert report.reward is not None
    assert report.train_metrics["1-dpo"]["examples"] == report.reward.pairs + SMALL["anchors"]
    assert report.reward.gain is not None
    assert report.reward.over_live is None
    assert report.preference is not None  # held-out votes, by the reward
    assert report.preference.accuracy.value == 1.0
    assert {"luck", "gain"} <= {check.name for check in judge(report, GateSettings()).checks}


@pytest.mark.parametrize("first", [(), (SFT.model_copy(update={"keep_out": 0.9}),)])
def test_an_adapter_is_kept_out_of_what_anchors_use(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: tuple[Stage, ...]
) -> None:
    """The anchors' directions stay closed to what is published, after two stages too, and people's
    prompts are heard at each strength, as many as the device affords.
    """
    stage = BON.model_copy(update={"keep_out": 0.9, "keep_known": True})
    spec = job_spec(tiny_model, *first, stage, **{**SMALL, "anchors": 56})
    heard = list[int]()

    def choose(model: object, texts: Texts, prompts: list[list[int]]) -> Strength:
        heard.append(len(prompts))
        return choose_strength(model, texts, prompts)

    monkeypatch.setattr(stages, "choose_strength", choose)
    monkeypatch.setattr(effort, "CPU", replace(effort.CPU, heard=1))
    directory = tmp_path / "job"
    write_job(directory, spec, votes(), votes(8))
    run_job(directory, evaluate=False)
    assert closed_share(directory, spec) < 0.01
    assert heard == [2]  # twice as many: these votes are about length


def closed_share(directory: Path, spec: JobSpec) -> float:
    """How much of a published A lies along what the anchors use, at most, of all layers."""
    texts = Texts(load_tokenizer(spec), spec.max_length)
    anchors = Drawer(spec, load_base(spec).eval(), texts).anchors()
    assert anchors
    model = load_trained(spec, directory / ADAPTER)
    encoder = make_encoder(load_tokenizer(spec), spec.max_length)
    liked = [text for text in unpaired(anchors) if text.label]
    basis = plain_directions(model, _as_rows(liked, encoder), 0.9, spec.seed)
    layers = dict(model.named_modules())
    weights = {name: layers[name].lora_A["default"].weight.detach().float() for name in basis}
    return max(float((weights[n] @ basis[n]).norm() / weights[n].norm()) for n in basis)


def test_what_was_ranked_before_a_crash_is_not_drawn_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    """A job that finds a lesson trains on that one: here it has one pair twelve times."""
    directory, spec = tmp_path / "job", job_spec(tiny_model, BON, **SMALL)
    write_job(directory, spec, votes(), votes(8))
    (directory / "work").mkdir()
    lesson = lesson_of(teacher(spec), directory / "work")
    other = replace(lesson, pairs=lesson.pairs[:1] * 12)
    keep_lesson(directory / "work" / "lesson", other)
    run_job(directory, evaluate=False)
    examples = read_report(directory).train_metrics["1-dpo"]["examples"]
    assert examples == len(other.taught) > len(lesson.taught)


def test_where_likes_are_rare_a_scouts_replies_are_ranked_too(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs are of one side's replies each; a job that died while the scout answered does not
    train it again, and learns the same.
    """
    spec = job_spec(tiny_model, BON, **SMALL)
    whole, died = tmp_path / "whole", tmp_path / "died"
    for directory in (whole, died):
        directory.mkdir()
    # Likes are common here, and a matter of length, which is handed on.
    monkeypatch.setattr(scout, "is_needed", lambda found: found.about_length)
    told: list[float] = []
    lesson = learn(spec, votes(), [], whole, lambda done, _: told.append(done))
    assert told == sorted(told)
    assert (lesson.figures.drawn, lesson.figures.scouted) == (32 + 24, 24)
    drawn = {o.text for one in Draws.read(whole / DRAWS).asked for o in one.options}
    sides = [{pair.chosen, pair.rejected} - VOTED for pair in lesson.pairs]
    assert any(side and not side & drawn for side in sides)
    assert all(side <= drawn or not side & drawn for side in sides)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(scout, "load_merged", interrupted)
        learn(spec, votes(), [], died, lambda done, message: None)
    with monkeypatch.context() as patched:
        patched.setattr(scout, "train_into", interrupted)
        again = learn(spec, votes(), [], died, lambda done, message: None)
    assert (again.pairs, again.figures) == (lesson.pairs, lesson.figures)


def interrupted(*given: object, **named: object) -> None:
    """What a person does in the middle."""
    raise KeyboardInterrupt


def test_where_likes_are_common_no_scout_is_sent(tiny_model: Path, tmp_path: Path) -> None:
    """Half of all votes are likes here; nor where the pairs show what is rare, or nothing is known
    that luck would not foretell as well, or length is what the votes are about.
    """
    lesson = learn(job_spec(tiny_model, BON, **SMALL), votes(), [], tmp_path, lambda *told: None)
    assert lesson.figures.liked > scout.RARE
    assert lesson.figures.scouted == 0
    assert not (tmp_path / "scout").exists()
    rare = lesson.figures.model_copy(
        update={"liked": 0.1, "likely": 0.3, "p_value": 0.1, "about_length": False}
    )
    assert scout.is_needed(rare)
    others = {"likely": 0.5, "liked": 0.3, "p_value": 0.11, "about_length": True}
    for figure, value in others.items():
        assert not scout.is_needed(rare.model_copy(update={figure: value}))


def test_draws_are_not_drawn_again(tiny_model: Path, tmp_path: Path) -> None:
    """What is kept comes back; another seed would have drawn other replies."""
    first = teacher(job_spec(tiny_model, BON, **SMALL)).draws(votes(), tmp_path / DRAWS, print)
    spec = job_spec(tiny_model, BON, **SMALL).model_copy(update={"seed": 9})
    again = teacher(spec).draws(votes(), tmp_path / DRAWS, print)
    anew = teacher(spec).draws(votes(), tmp_path / "other", print)
    assert (again.asked, again.anchors) == (first.asked, first.anchors)
    assert np.array_equal(again.states, first.states)
    assert anew.asked != first.asked


def test_a_family_whose_layers_cannot_be_read_is_refused_with_advice() -> None:
    """The sentence names what was asked for and what cannot be read."""

    class Strange:
        def get_decoder(self) -> object:
            return object()

    with pytest.raises(ModelError, match="recipe bon: Strange has no layers"):
        Overheard(Strange(), 0)


def test_long_prompts_are_answered_by_fewer_at_once(tiny_model: Path) -> None:
    """What is kept for attention stays within its room; there is always room for one."""
    own = teacher(job_spec(tiny_model, BON))
    assert own.drawer.at_once(50) == 128
    assert own.drawer.at_once(10**9) == 1
