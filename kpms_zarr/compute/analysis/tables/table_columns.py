"""Columns of the tables that are written: names with units, kinds and meanings, declared once."""

from __future__ import annotations

from dataclasses import dataclass

TABLES = ("epochs", "frames", "bouts", "syllables", "transitions", "ngrams", "distances")
"""Tables that there are, in the order in which they are described."""


@dataclass(frozen=True)
class TableColumn:
    """A column.

    Attributes
    ----------
    name : str
        Ends in its unit, where it has one: ``_s``, ``_ms``, ``_rad``, ``_units`` (of position), ...
    kind : str
        ``text``, ``int`` (below 0 = missing, unless ``is_signed``), ``float`` or ``float32`` (NaN =
        missing).
    meaning : str
    is_signed : bool
        Of an int: whether numbers below 0 are numbers.
    """

    name: str
    kind: str
    meaning: str
    is_signed: bool = False


def _columns(text: str) -> tuple[TableColumn, ...]:
    """Read declarations: ``kind name: meaning``; what is indented goes on with the line above."""
    found = []
    for line in text.replace("\n    ", " ").strip().splitlines():
        head, _, meaning = line.partition(": ")
        kind, name = head.split()
        found.append(TableColumn(name, kind, meaning))
    return tuple(found)


KEY = _columns("""
text session: session
text epoch: epoch of the session; empty = all of it
text condition: condition of the epoch; of a whole session its own
""")

FRAMES = _columns("""
int frame: frame of the session, from 0 on
float time_s: time of the frame: its timestamp; without timestamps frame / frames per second
int video_frame: frame of the video
int syllable: syllable; missing = none
int family: family of syllables that it belongs to
float32 certainty: posterior probability of the syllable of the frame
float32 centroid_x_units: position of the animal, first axis [units of position]
float32 centroid_y_units: position of the animal, second axis [units of position]
float32 height_units: position of the animal along the vertical axis [units of position]
float32 heading_rad: direction of the animal about the vertical axis
float32 speed_units_per_s: way from the frame before, per second [units of position / s]
float32 angular_velocity_rad_per_s: change of heading from the frame before, from -pi to pi, per
    second
""")

BOUTS = _columns("""
int syllable: syllable
int onset_frame: first frame of the bout
int offset_frame: frame after the last one
float onset_s: time of the first frame, as in frames
float offset_s: time of the frame after the last one
float duration_s: offset less onset
float mean_certainty: mean certainty of its frames
int previous_syllable: syllable of the bout that it follows; missing = none within the epoch, or
    frames without a label
int next_syllable: syllable of the bout that follows it; missing as for the previous one
""")

SYLLABLES = _columns("""
int syllable: syllable
text name: name that a person gave it
int family: family of syllables that it belongs to
int n_frames: frames of the syllable
int n_bouts: bouts of the syllable
float frequency_by_frames: share of the labelled frames of the session and epoch
float frequency_by_bouts: share of the bouts of the session and epoch
float mean_duration_ms: mean duration of its bouts
float median_duration_ms: median duration of its bouts
float duration_q05_ms: 5 % of its bouts are shorter
float duration_q25_ms: 25 % of its bouts are shorter
float duration_q75_ms: 75 % of its bouts are shorter
float duration_q95_ms: 95 % of its bouts are shorter
float mean_certainty: mean certainty of its frames
float mean_speed_units_per_s: mean speed over its frames [units of position / s]
float std_speed_units_per_s: standard deviation of that [units of position / s]
float mean_turning_rad_per_s: circular mean of the change of heading by frame, per second
float mean_absolute_turning_rad_per_s: mean amount of that change, per second
float turning_resultant_length: mean resultant length of the change of heading by frame, 0 to 1
float turning_circular_std_rad: circular standard deviation of that change
float mean_heading_rad: circular mean of the heading
float heading_resultant_length: mean resultant length of the heading, 0 to 1
""")

TRANSITIONS = _columns("""
int syllable: syllable of a bout
int next_syllable: syllable of the bout that follows it at the next frame
int count: how often; pairs that do not occur have no row
float bigram: share of all transitions of the session and epoch
float row: share of those from the syllable (rows of a matrix add up to 1)
float column: share of those to the next syllable (columns add up to 1)
""")

NGRAMS = _columns("""
int n: number of bouts in a row
text syllables: their syllables, joined by -
int count: how often; those that do not occur have no row
float share: share of all runs of n bouts of the session and epoch
""")

EPOCHS = _columns("""
int n_frames: frames of the epoch
float duration_s: their time
int n_labelled_frames: those with a label
int n_bouts: bouts
int n_syllables: syllables that occur
float entropy_by_frames_bits: entropy of the syllables by frames
float entropy_by_bouts_bits: entropy of the syllables by bouts
float effective_number: 2 to the power of the entropy by frames
float entropy_rate_bits_per_transition: entropy of the next syllable given the one before
int n_transitions: changes of syllable at consecutive frames
""")

DISTANCES = _columns("""
text session_a: session
text epoch_a: its epoch
text session_b: another, or another epoch of the same
text epoch_b: its epoch
float jensen_shannon_by_frames: Jensen-Shannon distance of the shares of syllables by frames, base
    2: 0 = the same, 1 = none in common
float jensen_shannon_by_bouts: the same of the shares by bouts
""")

COLUMNS = {
    "epochs": (*KEY, *EPOCHS),
    "frames": (*KEY, *FRAMES),
    "bouts": (*KEY, *BOUTS),
    "syllables": (*KEY, *SYLLABLES),
    "transitions": (*KEY, *TRANSITIONS),
    "ngrams": (*KEY, *NGRAMS),
    "distances": DISTANCES,
}
"""Table -> its columns, all that it can have."""
