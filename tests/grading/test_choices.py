"""Letters of multiple-choice answers as models write them."""

import pytest

from intuitor_lib.grading.choices import extract_choice


class TestChoice:
    @pytest.mark.parametrize(
        ("text", "letter"),
        [
            ("The answer is (C).", "C"),
            ("the answer is (c)", "C"),
            ("Answer: C", "C"),
            ("**Answer:** C", "C"),
            ("**Answer**: **(C) 42**", "C"),
            ("Final answer: $D$", "D"),
            ("Answer: C. Nucleus", "C"),
            ("The correct option is B because x > 0.", "B"),
            ("The best choice is option D", "D"),
            ("The answer is A.", "A"),
            ("The answer is A because both grow.", "A"),
            ("The answer is I.", "I"),
            ("B is the correct answer.", "B"),
            ("Hence, B is the answer.", "B"),
            ("Therefore, option B is correct.", "B"),
            ("Thus, (B) is correct.", "B"),
            ("A is correct if x is positive. But the answer is C.", "C"),
            ("The answer is likely (B).", "B"),
            (r"The answer is \((B)\)", "B"),
            (r"so $\boxed{C}$", "C"),
            (r"\boxed{\text{(C)}}", "C"),
            (r"\boxed{\textbf{(D) } 12}", "D"),
            (r"The answer is $\boxed{\text{E}}$", "E"),
            ("The answer is (B). Wait: the answer is (D).", "D"),
            (r"The answer is (B). No, \boxed{D}", "D"),
            (r"\boxed{D}, so the answer is (B)", "B"),
            ("I weigh both.\n\nIt is **C**.", "C"),
            ("**B**: no.\n**C**: yes.\n\nTherefore it is **(C)**", "C"),
            ("The answer is **C**, not **D**.", "C"),
            ("C", "C"),
            ("(C)", "C"),
            ("Reasoning.\n\nC.", "C"),
            ("Reasoning.\nC. Nucleus", "C"),
            ("It grows, so it must be (C).", "C"),
            ("Therefore, J", "J"),
            ("I'd say (B)", "B"),
            ("Answer: [C]", "C"),
            ("Final answer: 'c'", "C"),
            ('The correct option is "B".', "B"),
            ("The answer is `D`, I think.", "D"),
            ("Answer: b", "B"),
            (r"The answer is \(C\).", "C"),
            ("The answer is C rather than A.", "C"),
            ("Is the answer C? The answer is D.", "D"),
            ("**Answer:** d.\nDone", "D"),
        ],
    )
    def test_stated(self, text, letter):
        assert extract_choice(text) == letter

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "I think so.",
            "A good question. I do not know.",
            "The answer is A vector.",
            "The answer is I think unknown",
            "The answer is A or B",
            "The answer is (A) and (C).",
            "The answer is not B",
            "The answer is B? I do not know.",
            "the answer is a vector",
            "answer: a vector",
            "Answer: [A, B]",
            'the answer is "a vector"',
            "It contains vitamin C.",
            "A. one\nB. two\nC. three",
            r"\boxed{A + B}",
            r"\boxed{42}",
            "The answer is K.",
            "Answer: C3PO",
            "The answers differ. (C) is one option among many here",
        ],
    )
    def test_nothing_is_guessed(self, text):
        assert extract_choice(text) is None

    def test_letters(self):
        assert extract_choice("Answer: E", "ABCD") is None
        assert extract_choice("Answer: E", "ABCDE") == "E"
        with pytest.raises(ValueError, match=r"letters is 'A-D'.*capital"):
            extract_choice("Answer: C", "A-D")
