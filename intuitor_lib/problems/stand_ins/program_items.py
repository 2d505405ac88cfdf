"""Parts and whole tasks from which `programming` makes its problems.

Rows of a table are `name :: English :: Python`; indented lines continue the row above. After `|` is
the result where nothing is left.
"""

__all__: list[str] = []

KEPT_NUMBERS = """
:: all the numbers ::
even :: the even numbers :: x % 2 == 0
odd :: the odd numbers :: x % 2 == 1
positive :: the numbers greater than 0 :: x > 0
negative :: the numbers less than 0 :: x < 0
above_5 :: the numbers greater than 5 :: x > 5
below_10 :: the numbers less than 10 :: x < 10
at_least_7 :: the numbers that are 7 or more :: x >= 7
threes :: the numbers divisible by 3 :: x % 3 == 0
not_fives :: the numbers that are not divisible by 5 :: x % 5 != 0
fours :: the numbers divisible by 4 :: x % 4 == 0
two_digit :: the numbers from 10 to 99, both included :: 10 <= x <= 99
near_zero :: the numbers from -5 to 5, both included :: -5 <= x <= 5
repeated :: the numbers that occur more than once in the list :: numbers.count(x) > 1
single :: the numbers that occur exactly once in the list :: numbers.count(x) == 1
above_first :: the numbers greater than the first number of the list :: x > numbers[0]
below_last :: the numbers less than the last number of the list :: x < numbers[-1]
"""
DONE_TO_NUMBERS = """
::  ::
doubled :: double each of them :: x * 2
squared :: square each of them :: x * x
tripled :: multiply each of them by 3 :: x * 3
plus_4 :: add 4 to each of them :: x + 4
minus_3 :: subtract 3 from each of them :: x - 3
negated :: change the sign of each of them :: -x
absolute :: replace each of them by its absolute value :: abs(x)
last_digit :: replace each of them by the last digit of its absolute value :: abs(x) % 10
from_100 :: subtract each of them from 100 :: 100 - x
capped :: replace each of them that is greater than 8 by 8 :: min(x, 8)
"""
FROM_NUMBERS = """
total :: the sum of the {them}|0 :: sum(values)
largest :: the largest of the {them}|0 :: max(values, default=0)
smallest :: the smallest of the {them}|0 :: min(values, default=0)
listed :: the list of the {them} in their original order|an empty list :: values
reversed :: the list of the {them} in reverse order|an empty list :: values[::-1]
ascending :: the {them} as a list in ascending order|an empty list :: sorted(values)
descending :: the {them} as a list in descending order|an empty list :: sorted(values,
    reverse=True)
distinct :: the list of the {them} without repetitions, each at the place of its first
    occurrence|an empty list :: list(dict.fromkeys(values))
spread :: the difference between the largest and the smallest of the {them}|0 :: max(values) -
    min(values) if values else 0
running :: the list of the running totals of the {them} (the first, the sum of the first two,
    and so on)|an empty list :: [sum(values[: i + 1]) for i in range(len(values))]
alternating :: the first of the {them} minus the second plus the third minus the fourth, and so
    on|0 :: sum(values[::2]) - sum(values[1::2])
ends :: the sum of the first and the last of the {them}, which may be the same one|0 ::
    values[0] + values[-1] if values else 0
kinds :: how many different values there are among the {them}|0 :: len(set(values))
mean :: the average of the {them}, rounded down to an integer
    (-2.5 becomes -3)|0 :: sum(values) // len(values) if
    values else 0
second :: the second of the {them}, or -1 if there is only one|-1 :: values[1] if len(values) >
    1 else -1
"""
KEPT_WORDS = """
:: all the words ::
long :: the words with more than 4 letters :: len(x) > 4
short :: the words with at most 3 letters :: len(x) <= 3
even_length :: the words with an even number of letters :: len(x) % 2 == 0
vowel_start :: the words that start with a vowel (a, e, i, o or u) :: x[0] in "aeiou"
vowel_end :: the words that end with a vowel (a, e, i, o or u) :: x[-1] in "aeiou"
with_a :: the words that contain the letter "a" :: "a" in x
without_e :: the words that do not contain the letter "e" :: "e" not in x
with_n :: the words that contain the letter "n" :: "n" in x
same_ends :: the words whose first and last letters are the same :: x[0] == x[-1]
early :: the words that start with a letter from "a" to "m" :: x[0] <= "m"
unrepeated :: the words that occur exactly once :: words.count(x) == 1
"""
DONE_TO_WORDS = """
::  ::
backwards :: reverse the letters of each of them :: x[::-1]
upper :: change each of them to capital letters :: x.upper()
capitalised :: make the first letter of each of them a capital :: x[0].upper() + x[1:]
initials :: replace each of them by its first letter :: x[0]
final_letters :: replace each of them by its last letter :: x[-1]
starts :: cut each of them down to its first three letters if it is longer :: x[:3]
twice :: write each of them twice without a space between (so cat becomes catcat) :: x * 2
no_a :: remove every letter "a" from each of them :: x.replace("a", "")
star :: put a star "*" after each of them :: x + "*"
rotated :: move the first letter of each of them to its end :: x[1:] + x[0]
"""
FROM_WORDS = """
listed :: the list of the {them} in their original order|an empty list :: values
sorted :: the {them} as a list in alphabetical order|an empty list :: sorted(values)
dashed :: the {them} joined with dashes "-" in their original order|an empty string ::
    "-".join(values)
joined :: the {them} joined without anything between them|an empty string :: "".join(values)
reversed :: the list of the {them} in reverse order|an empty list :: values[::-1]
letters :: the total number of characters of the {them}|0 :: sum(len(x) for x in values)
longest :: the longest of the {them} (of several, the first)|an empty string :: max(values,
    key=len, default="")
shortest :: the shortest of the {them} (of several, the first)|an empty string :: min(values,
    key=len, default="")
first_in_order :: the one of the {them} that comes first in alphabetical order|an empty string ::
    min(values, default="")
lengths :: the list of the lengths of the {them} in their original order|an empty list ::
    [len(x) for x in values]
by_size :: the {them} as a list from shortest to longest, those of the same length in their
    original order|an empty list :: sorted(values, key=len)
distinct :: how many different ones there are among the {them}|0 :: len(set(values))
"""
KEPT_CHARACTERS = """
:: all the characters ::
vowels :: the vowels (a, e, i, o, u, small or capital) :: x in "aeiouAEIOU"
nonvowels :: the characters that are not vowels (a, e, i, o, u, small or capital) :: x not in
    "aeiouAEIOU"
digits :: the digits :: x.isdigit()
letters :: the letters :: x.isalpha()
capitals :: the capital letters :: x.isupper()
lowercase :: the small letters :: x.islower()
nonspaces :: the characters that are not spaces :: x != " "
nondigits :: the characters that are not digits :: not x.isdigit()
repeated :: the characters that occur more than once in the text :: text.count(x) > 1
once :: the characters that occur exactly once in the text :: text.count(x) == 1
"""
DONE_TO_CHARACTERS = """
::  ::
upper :: change small letters among them to capitals :: x.upper()
lower :: change capital letters among them to small ones :: x.lower()
doubled :: write each of them twice in a row :: x * 2
starred :: put a star "*" after each of them :: x + "*"
hidden_e :: replace each "e" among them by "3" :: x.replace("e", "3")
swapped :: change small letters among them to capitals and capitals to small letters ::
    x.swapcase()
"""
FROM_CHARACTERS = """
text :: the {them} joined into one string in their original order|an empty string ::
    "".join(values)
backwards :: the {them} joined into one string in reverse order|an empty string ::
    "".join(values[::-1])
count :: how many different values there are among the {them}|0 :: len(set(values))
unique :: the {them} joined into one string in their original order, leaving out each one that
    has come before|an empty string :: "".join(dict.fromkeys(values))
alternate :: every second one of the {them} (the first, the third, the fifth and so on) joined
    into one string|an empty string :: "".join(values[::2])
edges :: the first and the last of the {them} joined into one string (a single one is written
    twice)|an empty string :: values[0] + values[-1] if values else ""
tail :: the last three of the {them} (all of them, if there are fewer) joined into one string|an
    empty string :: "".join(values[-3:])
"""
KEPT_DIGITS = """
:: all the digits ::
even :: the even digits :: x % 2 == 0
odd :: the odd digits :: x % 2 == 1
above_4 :: the digits greater than 4 :: x > 4
nonzero :: the digits other than 0 :: x != 0
threes :: the digits divisible by 3 (0 is one of them) :: x % 3 == 0
below_7 :: the digits less than 7 :: x < 7
"""
DONE_TO_DIGITS = """
::  ::
squared :: square each of them :: x * x
doubled :: double each of them :: x * 2
from_9 :: subtract each of them from 9 :: 9 - x
plus_1 :: add 1 to each of them :: x + 1
"""
FROM_DIGITS = """
total :: the sum of the {them}|0 :: sum(values)
product :: the product of the {them}|1 :: math.prod(values)
largest :: the largest of the {them}|-1 :: max(values, default=-1)
smallest :: the smallest of the {them}|-1 :: min(values, default=-1)
listed :: the list of the {them} from left to right|an empty list :: values
ascending :: the {them} as a list in ascending order|an empty list :: sorted(values)
alternating :: the first of the {them} (from the left) minus the second plus the third minus the
    fourth, and so on|0 :: sum(values[::2]) - sum(values[1::2])
kinds :: how many different values there are among the {them}|0 :: len(set(values))
"""
PER_LINE = """
total :: the sum of its numbers :: sum(line)
largest :: its largest number :: max(line)
smallest :: its smallest number :: min(line)
evens :: how many of its numbers are even :: sum(x % 2 == 0 for x in line)
spread :: the difference between its largest and its smallest number :: max(line) - min(line)
above_5 :: how many of its numbers are greater than 5 :: sum(x > 5 for x in line)
kinds :: how many different numbers it holds :: len(set(line))
ends :: the sum of its first and its last number (twice the number, if it holds only one) ::
    line[0] + line[-1]
"""
FROM_LINES = """
listed :: the list of these values in order :: values
total :: the sum of these values :: sum(values)
largest :: the largest of these values :: max(values)
smallest :: the smallest of these values :: min(values)
place_of_largest :: the position of the largest of these values, counted from 0 (of several, the
    first) :: values.index(max(values))
descending :: these values as a list in descending order :: sorted(values, reverse=True)
"""

# Rows are `name :: shape of the input :: values of {k} :: what to return :: body`.
WHOLE = r"""
pairs_adding_to_{k} :: numbers :: 5 8 10 :: how many pairs of numbers at different positions of
    the list add up to {k} (every pair of positions counts once; 0 if there is none) ::
    pairs = [(i, j) for i in range(len(numbers)) for j in range(i)]
    \nreturn sum(1 for i, j in pairs if numbers[i] + numbers[j] == {k})
neighbours_{k}_apart :: numbers :: 1 2 4 :: how many times two numbers next to each other in the
    list differ by exactly {k}, whichever of them is larger (0 for fewer than two numbers) ::
    return sum(abs(a - b) == {k} for a, b in zip(numbers, numbers[1:]))
totals_of_groups_of_{k} :: numbers :: 2 3 4 :: the list of the sums of the numbers taken {k} at a
    time from the left; the last group may be smaller (an empty list for an empty list) ::
    return [sum(numbers[i : i + {k}]) for i in range(0, len(numbers), {k})]
peaks_of_windows_of_{k} :: numbers :: 2 3 :: the list of the largest number of every {k} numbers
    in a row, with the window moving one place at a time from left to right (an empty list for
    fewer than {k} numbers) ::
    return [max(numbers[i : i + {k}]) for i in range(len(numbers) - {k} + 1)]
moved_left_by_{k} :: numbers :: 2 3 4 :: the list moved {k} places to the left, where a number
    that leaves at the left end comes back at the right end (an empty list for an empty list) ::
    if not numbers:\n    return []\nshift = {k} % len(numbers)
    \nreturn numbers[shift:] + numbers[:shift]
every_{k}_from_the_first :: numbers :: 2 3 4 :: the list that starts with the first number and
    continues in steps of {k} positions (an empty list for an empty list) ::
    return numbers[::{k}]
place_of_first_above_{k} :: numbers :: 4 8 12 :: the position, counted from 0, of the first number
    greater than {k}, or -1 if there is none ::
    for i, x in enumerate(numbers):\n    if x > {k}:\n        return i\nreturn -1
small_before_{k} :: numbers :: 3 6 10 :: a list with the numbers less than {k} first and all other
    numbers after them, each of the two parts in its original order (an empty list for an empty
    list) :: return [x for x in numbers if x < {k}] + [x for x in numbers if x >= {k}]
longest_equal_run :: numbers :: - :: the length of the longest run of equal numbers that stand
    next to each other (0 for an empty list) ::
    best = run = 0\nfor i, x in enumerate(numbers):
    \n    run = run + 1 if i and numbers[i - 1] == x else 1\n    best = max(best, run)\nreturn best
longest_climb :: numbers :: - :: the length of the longest run of neighbouring numbers in which
    each is greater than the one before it (0 for an empty list, 1 for a list that never rises) ::
    best = run = 0\nfor i, x in enumerate(numbers):
    \n    run = run + 1 if i and numbers[i - 1] < x else 1\n    best = max(best, run)\nreturn best
longest_even_run :: numbers :: - :: the length of the longest run of even numbers that stand next
    to each other (0 if there is no even number) ::
    best = run = 0\nfor x in numbers:\n    run = run + 1 if x % 2 == 0 else 0
    \n    best = max(best, run)\nreturn best
steps_between :: numbers :: - :: the list of the differences "number minus the number before it",
    from the second number on (an empty list for fewer than two numbers) ::
    return [b - a for a, b in zip(numbers, numbers[1:])]
inner_peaks :: numbers :: - :: how many numbers are greater than both the number just before and
    the number just after them; the first and the last number never count ::
    return sum(a < b > c for a, b, c in zip(numbers, numbers[1:], numbers[2:]))
balance_from_{k} :: numbers :: 0 10 25 :: the final balance of an account that starts at {k} when
    the numbers are added to it one after the other, except that a number which would take the
    balance below 0 is skipped ({k} for an empty list) ::
    balance = {k}\nfor x in numbers:\n    if balance + x >= 0:\n        balance += x
    \nreturn balance
refusals_from_{k} :: numbers :: 1 5 12 :: how many numbers are skipped when the numbers are added
    one after the other to a balance that starts at {k}, and each number which would take the
    balance below 0 is skipped :: balance, refused = {k}, 0\nfor x in numbers:
    \n    if balance + x >= 0:\n        balance += x\n    else:\n        refused += 1
    \nreturn refused
lowest_point_from_{k} :: numbers :: 2 7 20 :: the lowest value that a counter ever has when it
    starts at {k} and the numbers are added to it one after the other (the start counts too) ::
    level = lowest = {k}\nfor x in numbers:\n    level += x\n    lowest = min(lowest, level)
    \nreturn lowest
pile_after_moves :: numbers :: - :: the final pile as a list from bottom to top, when the numbers
    are handled from left to right on an empty pile: a number of 0 or more is put on top, and a
    negative number only removes the top of the pile (nothing happens if the pile is empty) ::
    pile = []\nfor x in numbers:\n    if x >= 0:\n        pile.append(x)
    \n    elif pile:\n        pile.pop()\nreturn pile
taken_before_passing_{k} :: numbers :: 15 22 30 :: how many numbers can be added from the left,
    stopping before the first number that would make the total greater than {k} ::
    total = taken = 0\nfor x in numbers:\n    if total + x > {k}:\n        break
    \n    total += x\n    taken += 1\nreturn taken
smaller_ones_for_each :: numbers :: - :: a list that tells for each number how many numbers of the
    whole list are less than it (an empty list for an empty list) ::
    return [sum(y < x for y in numbers) for x in numbers]
runs_collapsed :: numbers :: - :: the list in which every run of equal neighbouring numbers is
    reduced to one of them (an empty list for an empty list) ::
    return [x for i, x in enumerate(numbers) if i == 0 or numbers[i - 1] != x]
neighbours_swapped :: numbers :: - :: the list after swapping the first number with the second,
    the third with the fourth and so on; a last number without partner stays where it is ::
    swapped = list(numbers)\nfor i in range(0, len(numbers) - 1, 2):
    \n    swapped[i], swapped[i + 1] = numbers[i + 1], numbers[i]\nreturn swapped
record_values :: numbers :: - :: the list of the numbers that are greater than every number before
    them; the first number always belongs to it (an empty list for an empty list) ::
    records = []\nfor x in numbers:\n    if not records or x > records[-1]:
    \n        records.append(x)\nreturn records
shared_values :: lists :: - :: the different numbers that both lists contain, in ascending order
    (an empty list if there are none) :: return sorted(set(left) & set(right))
products_added :: lists :: - :: the sum of the products of the numbers at the same positions of
    both lists; numbers of the longer list without partner are ignored (0 if there are no pairs) ::
    return sum(a * b for a, b in zip(left, right))
taken_in_turns :: lists :: - :: the list that takes one number from the first list, then one from
    the second, and so on; once one list is used up, the rest of the other one follows ::
    merged = []\nfor i in range(max(len(left), len(right))):\n    merged += left[i : i + 1]
    \n    merged += right[i : i + 1]\nreturn merged
only_in_the_first :: lists :: - :: the numbers of the first list that do not occur in the second,
    in their original order and with repetitions :: return [x for x in left if x not in right]
larger_of_each_pair :: lists :: - :: the list of the larger numbers of the pairs at the same
    positions of both lists; numbers of the longer list without partner are left out ::
    return [max(a, b) for a, b in zip(left, right)]
places_that_agree :: lists :: - :: how many positions there are at which both lists have the same
    number :: return sum(a == b for a, b in zip(left, right))
all_values_once :: lists :: - :: every number that occurs in at least one of the lists once, in
    descending order :: return sorted(set(left) | set(right), reverse=True)
totals_apart :: lists :: - :: the sum of the first list minus the sum of the second list, where
    the sum of an empty list is 0 :: return sum(left) - sum(right)
runs_with_lengths :: text :: - :: the text in which every run of the same character is replaced
    by the character and the length of the run, so that "aab" becomes "a2b1" (an empty string for
    an empty string) :: parts = []\nfor x in text:\n    if parts and parts[-1][0] == x:
    \n        parts[-1][1] += 1\n    else:\n        parts.append([x, 1])
    \nreturn "".join(f"{{c}}{{n}}" for c, n in parts)
longest_letter_run :: text :: - :: the length of the longest run of the same character (0 for an
    empty string) :: best = run = 0\nfor i, x in enumerate(text):
    \n    run = run + 1 if i and text[i - 1] == x else 1\n    best = max(best, run)\nreturn best
letters_moved_by_{k} :: text :: 2 3 5 :: the text in which every small letter from "a" to "z" is
    replaced by the letter {k} places later in the alphabet, going on with "a" after "z"; all
    other characters stay as they are :: moved = []\nfor x in text:\n    if "a" <= x <= "z":
    \n        x = chr((ord(x) - ord("a") + {k}) % 26 + ord("a"))\n    moved.append(x)
    \nreturn "".join(moved)
pieces_of_{k} :: text :: 2 3 4 :: the list of the pieces of the text when it is cut from the left
    into pieces of {k} characters; the last piece may be shorter (an empty list for an empty
    string) :: return [text[i : i + {k}] for i in range(0, len(text), {k})]
each_part_backwards :: text :: - :: the text with the characters of every word reversed, the words
    staying in their places (words are separated by single spaces) ::
    return " ".join(part[::-1] for part in text.split(" "))
places_of_{k} :: text :: a e n :: the list of the positions, counted from 0, at which the
    character "{k}" stands in the text (an empty list if there is none) ::
    return [i for i, x in enumerate(text) if x == "{k}"]
before_first_{k} :: text :: a i o :: the part of the text before the first "{k}", or the whole
    text in capital letters if there is no "{k}" ::
    return text[: text.index("{k}")] if "{k}" in text else text.upper()
final_place :: moves :: - :: the final position as a list [x, y] of a robot that starts at [0, 0]:
    U adds 1 to y, D subtracts 1 from y, R adds 1 to x and L subtracts 1 from x ::
    return [moves.count("R") - moves.count("L"), moves.count("U") - moves.count("D")]
farthest_from_start :: moves :: - :: the largest distance |x| + |y| from the start that a robot
    ever has when it starts at x = 0, y = 0: U adds 1 to y, D subtracts 1 from y, R adds 1 to x
    and L subtracts 1 from x (0 if there are no moves) :: x = y = best = 0\nfor move in moves:
    \n    x += (move == "R") - (move == "L")\n    y += (move == "U") - (move == "D")
    \n    best = max(best, abs(x) + abs(y))\nreturn best
returns_to_start :: moves :: - :: how many times a robot comes back to the cell on which it
    started, moving one cell up (U), down (D), left (L) or right (R) for each letter ::
    x = y = times = 0\nfor move in moves:\n    x += (move == "R") - (move == "L")
    \n    y += (move == "U") - (move == "D")\n    times += x == 0 and y == 0\nreturn times
cells_visited :: moves :: - :: how many different cells a robot stands on, its first cell
    included, when it moves one cell up (U), down (D), left (L) or right (R) for each letter ::
    x = y = 0\nseen = {{(0, 0)}}\nfor move in moves:\n    x += (move == "R") - (move == "L")
    \n    y += (move == "U") - (move == "D")\n    seen.add((x, y))\nreturn len(seen)
floor_between_0_and_{k} :: moves :: 1 2 3 :: the final floor of a lift that starts on floor 0 and
    goes one floor up for U and one down for D, but never below floor 0 or above floor {k} (such a
    move does nothing); L and R are ignored :: floor = 0\nfor move in moves:
    \n    floor += (move == "U") - (move == "D")\n    floor = min(max(floor, 0), {k})\nreturn floor
direction_changes :: moves :: - :: how many letters of the moves, from the second on, differ from
    the letter just before them :: return sum(a != b for a, b in zip(moves, moves[1:]))
rounds_to_zero_by_{k} :: number :: 2 3 5 :: the number of steps it takes to reach 0, where a step
    divides the number by {k} if it is divisible by {k} and subtracts 1 from it otherwise
    (0 steps for 0) :: steps = 0\nwhile number > 0:
    \n    number = number // {k} if number % {k} == 0 else number - 1\n    steps += 1\nreturn steps
quotients_by_{k} :: number :: 2 3 4 10 :: the list that starts with the number and continues with
    the last entry divided by {k} and rounded down, again and again, up to the last entry greater
    than 0 (an empty list for 0) :: values = []\nwhile number > 0:\n    values.append(number)
    \n    number //= {k}\nreturn values
digits_in_base_{k} :: number :: 4 6 7 :: the digits of the number written in base {k}, as a list
    from the most to the least significant digit ([0] for 0) :: digits = [number % {k}]
    \nwhile number >= {k}:\n    number //= {k}\n    digits.insert(0, number % {k})\nreturn digits
digits_largest_first :: number :: - :: the number that is made of the same digits in descending
    order (0 for 0) :: return int("".join(sorted(str(number), reverse=True)))
turned_round_plus_{k} :: number :: 1 5 :: {k} plus the number whose digits are those of the given
    number in reverse order (leading zeros are dropped) :: return int(str(number)[::-1]) + {k}
sum_of_multiples_of_{k} :: number :: 3 4 7 :: the sum of all positive multiples of {k} that are
    not greater than the number (0 if there are none) :: return sum(range({k}, number + 1, {k}))
total_above_{k} :: table :: 5 10 15 :: the sum of the values greater than {k} (0 if there are
    none) :: return sum(v for v in table.values() if v > {k})
names_with_at_least_{k} :: table :: 4 8 12 :: the list of the keys whose value is {k} or more, in
    alphabetical order (an empty list if there are none) ::
    return sorted(key for key, v in table.items() if v >= {k})
name_of_largest :: table :: - :: the key with the largest value (of several, the one that comes
    first in alphabetical order), or an empty string for an empty dictionary ::
    return min(table, key=lambda key: (-table[key], key), default="")
names_by_value :: table :: - :: the list of the keys from the smallest value to the largest, keys
    with the same value in alphabetical order (an empty list for an empty dictionary) ::
    return sorted(table, key=lambda key: (table[key], key))
raised_by_{k} :: table :: 2 5 :: a dictionary with the same keys in which each value is greater by
    {k} (an empty dictionary for an empty one) ::
    return {{key: v + {k} for key, v in table.items()}}
without_less_than_{k} :: table :: 3 9 :: a dictionary with only those entries whose value is {k}
    or more (an empty dictionary if there are none) ::
    return {{key: v for key, v in table.items() if v >= {k}}}
totals_by_initial :: table :: - :: a dictionary from each first letter of a key to the sum of the
    values of the keys that start with this letter (an empty dictionary for an empty one) ::
    totals = {{}}\nfor key, v in table.items():\n    totals[key[0]] = totals.get(key[0], 0) + v
    \nreturn totals
names_by_shared_value :: table :: - :: a dictionary from each value to the list, in alphabetical
    order, of the keys that have this value (an empty dictionary for an empty one) ::
    groups = {{}}\nfor key in sorted(table):\n    groups.setdefault(table[key], []).append(key)
    \nreturn groups
turned_on_its_side :: grid :: - :: the grid whose rows are the columns of the given one, from left
    to right :: return [list(column) for column in zip(*grid)]
quarter_turn_clockwise :: grid :: - :: the grid turned by a quarter turn clockwise, so that the
    first column, read from bottom to top, becomes the first row ::
    return [list(column)[::-1] for column in zip(*grid)]
mirrored_rows :: grid :: - :: the grid with the numbers of every row in reverse order ::
    return [row[::-1] for row in grid]
along_the_border :: grid :: - :: the sum of the numbers in the first row, the last row, the first
    column and the last column, with every cell counted only once ::
    last, end = len(grid) - 1, len(grid[0]) - 1
    \ncells = [(i, j) for i in range(last + 1) for j in range(end + 1)]
    \nreturn sum(grid[i][j] for i, j in cells if i in (0, last) or j in (0, end))
cells_above_{k} :: grid :: 3 6 :: how many numbers of the grid are greater than {k} ::
    return sum(x > {k} for row in grid for x in row)
snake_order :: grid :: - :: a list of all numbers, the first row from left to right, the second
    from right to left, the third from left to right again, and so on ::
    return [x for i, row in enumerate(grid) for x in (row[::-1] if i % 2 else row)]
checkerboard_total :: grid :: - :: the sum of the numbers for which row plus column, both counted
    from 0, is even ::
    return sum(x for i, row in enumerate(grid) for j, x in enumerate(row) if (i + j) % 2 == 0)
rising_rows :: grid :: - :: how many rows have every number, from the second on, greater than the
    number to its left (a row of one number counts) ::
    return sum(all(a < b for a, b in zip(row, row[1:])) for row in grid)
"""
