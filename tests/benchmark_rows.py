"""Rows of our own in the columns of the benchmarks' files."""

import json

MMLU = {
    "question_id": 7,
    "question": "Which number is even?",
    "options": ["1", "2", "3", "N/A"],
    "answer": "B",
    "answer_index": 1,
    "cot_content": "A: Let's think step by step. 2 = 2 x 1. The answer is (B).",
    "category": "math",
}
ALPACA = [
    {"dataset": "helpful_base", "instruction": "Name a colour.", "output": "Red", "generator": "x"},
    {"dataset": "koala", "instruction": "Name a fruit.", "output": "Fig", "generator": "x"},
]
CRUX = {
    "id": "sample_0",
    "code": "def f(a):\n    return a + [1]",
    "input": "[2]",
    "output": "[2, 1]",
}
LCB = {
    "question_id": "abc1_a",
    "question_content": "Read two numbers and print their sum.",
    "starter_code": "",
    "public_test_cases": '[{"input": "1 2\\n", "output": "3\\n", "testtype": "stdin"}]',
    "private_test_cases": '[{"input": "4 5\\n", "output": "9\\n", "testtype": "stdin"}]',
    "metadata": "{}",
}
METHOD = {
    **LCB,
    "question_id": "3000",
    "question_content": "Add k to each number.",
    "starter_code": "class Solution:\n    def addAll(self, nums: List[int], k: int) -> List[int]:",
    "public_test_cases": '[{"input": "[1]\\n2", "output": "[3]", "testtype": "functional"}]',
    "private_test_cases": '[{"input": "[]\\n2", "output": "[]", "testtype": "functional"}]',
    "metadata": '{"func_name": "addAll"}',
}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
