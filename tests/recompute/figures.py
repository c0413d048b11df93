"""Elements, completeness and indicators computed a second time, from the texts alone.

Written from docs/formats.md, docs/decisions/019-how-indicators-are-computed.md and the fixed meaning of figures; it
shares no code with the programs it checks and knows nothing of ledgers, cubes or sheets. Slow and plain on purpose:
every figure is a sum over facilities and days, exact fractions throughout.
"""

import calendar
import csv
import re
import tomllib
from collections import defaultdict
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
RANK = {"day": 0, "week": 1, "month": 2, "quarter": 3, "half": 4, "year": 5}


# ---- Periods


class Period(tuple):
    """(type, first day, last day)."""

    __slots__ = ()

    @property
    def type(self):
        return self[0]

    @property
    def first(self):
        return self[1]

    @property
    def last(self):
        return self[2]

    def days(self):
        return [self.first + n * DAY for n in range((self.last - self.first).days + 1)]

    def text(self):
        if self.type == "day":
            return self.first.isoformat()
        if self.type == "month":
            return f"{self.first:%Y-%m}"
        if self.type == "quarter":
            return f"{self.first.year}Q{(self.first.month + 2) // 3}"
        return str(self.first.year)


def day_period(day):
    return Period(("day", day, day))


def month_of(day):
    last = calendar.monthrange(day.year, day.month)[1]
    return Period(("month", day.replace(day=1), day.replace(day=last)))


def year_of(day):
    return Period(("year", date(day.year, 1, 1), date(day.year, 12, 31)))


def period(text):
    if match := re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", text):
        return day_period(date(*map(int, match.groups())))
    if match := re.fullmatch(r"(\d{4})-(\d\d)", text):
        return month_of(date(int(match[1]), int(match[2]), 1))
    if match := re.fullmatch(r"(\d{4})Q([1-4])", text):
        first = date(int(match[1]), 3 * int(match[2]) - 2, 1)
        return Period(("quarter", first, month_of(first + timedelta(days=70)).last))
    if ".." in text:
        first, last = map(period, text.split(".."))
        return Period(("span", first.first, last.last))
    if match := re.fullmatch(r"\d{4}", text):
        return year_of(date(int(text), 1, 1))
    raise ValueError(text)


def parts(span, kind):
    """The periods of a type that lie wholly in a span."""
    found = []
    of = {"day": day_period, "month": month_of, "year": year_of}[kind]
    day = span.first
    while day <= span.last:
        one = of(day)
        if one.first >= span.first and one.last <= span.last:
            found.append(one)
        day = one.last + DAY
    return found


def before(one):
    """The period of the same type just before."""
    return {"day": day_period, "month": month_of, "year": year_of}[one.type](one.first - DAY)


def year_earlier(one):
    return month_of(one.first.replace(year=one.first.year - 1))


# ---- Filters and expressions


class Filter:
    def __init__(self, text):
        self.parts = []
        for part in text.split(";"):
            key, choices = part.split("=", 1)
            self.parts.append((key.strip(), [choice.strip() for choice in choices.split("|")]))

    def kinds(self):
        return [kinds for key, kinds in self.parts if key == "kind"]

    def passes(self, facts):
        return all(self._part(facts, key, choices) for key, choices in self.parts)

    @staticmethod
    def _part(facts, key, choices):
        if key == "kind":
            return facts["kind"] in choices
        if key == "role":
            wanted = [choice.split("@") for choice in choices]
            return any(
                role in (held, "*") and network in (kind, "*")
                for held, kind in facts["roles"]
                for role, network in wanted
            )
        return facts["attributes"].get(key) in choices


TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+)|(?P<name>[A-Za-z_](?:[A-Za-z0-9_.\-]*[A-Za-z0-9_])?)"
    r"|(?P<op><=|>=|!=|[<>=+\-*/(){},\[]))"
)
FUNCTIONS = {
    "ytd", "cumulative", "mean", "on_working_days", "working_days", "days_in_period", "abs", "max", "min",
}


class Parser:
    """The grammar of docs/formats.md, as far as indicators use it."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def peek(self):
        if not self.text[self.at :].strip():
            return None
        match = TOKEN.match(self.text, self.at)
        assert match, (self.text, self.at)
        return match

    def take(self, *wanted):
        match = self.peek()
        if match and match.group().strip() in wanted:
            self.at = match.end()
            return match.group().strip()
        return None

    def whole(self):
        tree = self.binary(0)
        assert self.peek() is None, (self.text, self.at)
        return tree

    LEVELS = [["or"], ["and"], ["<=", ">=", "<", ">", "=", "!="], ["+", "-"], ["*", "/"]]

    def binary(self, level):
        if level == len(self.LEVELS):
            return self.operand()
        left = self.binary(level + 1)
        while op := self.take(*self.LEVELS[level]):
            left = (op, left, self.binary(level + 1))
        return left

    def operand(self):
        if self.take("("):
            tree = self.binary(0)
            assert self.take(")")
            return tree
        match = self.peek()
        self.at = match.end()
        if match["number"]:
            return ("number", int(match["number"]))
        name = match["name"]
        if name in FUNCTIONS:
            assert self.take("("), name
            arguments = []
            while not self.take(")"):
                arguments.append(self.binary(3))
                self.take(",")
            if name in ("ytd", "cumulative", "mean", "on_working_days"):
                (argument,) = arguments
                return ("term", argument[1], argument[2], name)
            return (name, *arguments)
        test = None
        if self.take("["):
            end = self.text.index("]", self.at)
            test = Filter(self.text[self.at : end])
            self.at = end + 1
        if name == "facilities":
            return ("facilities", test)
        return ("term", name, test, "plain")


def terms(tree):
    if tree[0] == "term":
        return [tree]
    return [term for part in tree[1:] if isinstance(part, tuple) for term in terms(part)]


def nodes(tree, name):
    here = [tree] if tree[0] == name else []
    return here + [node for part in tree[1:] if isinstance(part, tuple) for node in nodes(part, name)]


class Absent(Exception):
    """An operand is absent: the expression is not evaluated."""


def evaluate(tree, value):
    """The tree's value; `value` gives that of a leaf."""
    op = tree[0]
    if op == "number":
        return Fraction(tree[1])
    if op in ("term", "facilities", "working_days", "days_in_period"):
        return value(tree)
    left, right = (evaluate(part, value) for part in tree[1:])
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            if right == 0:
                raise Absent
            return left / right
        case "and":
            return left and right
        case "or":
            return left or right
        case "<=":
            return left <= right
        case ">=":
            return left >= right
        case "<":
            return left < right
        case ">":
            return left > right
        case "=":
            return left == right
        case "!=":
            return left != right
    raise ValueError(tree)


# ---- The world: registry, catalogue, counts


def table(folder, name):
    path = folder / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{key: (cell or "").strip() for key, cell in row.items()} for row in csv.DictReader(file)]


def opt_day(text, default):
    return date.fromisoformat(text) if text else default


def within(row, day, opens="from", closes="to"):
    return opt_day(row[opens], date.min) <= day < opt_day(row[closes], date.max)


class World:
    def __init__(self, folder, now=None, counted="counted"):
        folder = Path(folder)
        with (folder / "catalogue.toml").open("rb") as file:
            self.catalogue = tomllib.load(file)
        self.zone = ZoneInfo(self.catalogue["time_zone"])
        self.now = now or datetime.now(self.zone)
        self.today = self.now.astimezone(self.zone).date()
        self.kind_class = {kind["code"]: kind["class"] for kind in self.catalogue["kind"]}
        self.elements = {element["code"]: element for element in self.catalogue["element"]}
        self.forms = {form["code"]: form for form in self.catalogue["form"]}
        self.indicators = {one["code"]: one for one in self.catalogue["indicator"]}
        for form in self.forms.values():
            for line in form["line"]:
                line["test"] = Filter(line["asked_of"]) if "asked_of" in line else None
        self.units = defaultdict(list)
        for row in table(folder, "units"):
            self.units[row["code"]].append(row)
        self.networks = {row["code"]: row for row in table(folder, "networks")}
        self.exclusive = {one["code"] for one in self.catalogue["network_kind"] if one.get("exclusive")}
        self.members = defaultdict(list)
        for row in table(folder, "members"):
            self.members[row["unit"]].append(row)
        self.attributes = defaultdict(list)
        for row in table(folder, "attributes"):
            self.attributes[row["unit"]].append(row)
        self.duty_rows = defaultdict(list)
        for row in table(folder, "duties"):
            self.duty_rows[row["form"], row["unit"]].append(row)
        self.calendar = {(row["unit"], row["date"]): row["day"] == "working" for row in table(folder, "calendar")}
        self.extensions = defaultdict(list)
        for row in table(folder, "extensions"):
            first, _, last = row["period"].partition("..")
            row["span"] = (period(first).first, period(last or first).last)
            self.extensions[row["form"]].append(row)
        self.targets = table(folder, "targets")
        self.reports = {}
        for row in table(folder, counted):
            key = (row["facility"], row["form"], row["period"])
            values = self.reports.setdefault(key, {})
            values[row["element"]] = None if row["value"] == "" else row["value"] if row["value"] == "NA" else int(row["value"])
        self.told = defaultdict(list)
        for (facility, form, text), values in self.reports.items():
            self.told[facility].append((period(text), values))
        self.reporters = [
            code for code, rows in self.units.items() if self.kind_class[rows[0]["kind"]] in ("facility", "desk")
        ]
        for name in ("row", "chain", "facts", "on_map", "memberships", "duty_day", "slots_of", "duty", "due", "working"):
            setattr(self, name, cache(getattr(self, name)))

    def told_by(self, unit):
        """A unit's reports: their periods and what they say."""
        return self.told.get(unit, ())

    # -- Units on a day

    def row(self, code, day):
        for row in self.units.get(code, ()):
            if within(row, day, "opened", "closed"):
                return row
        return None

    def open(self, code, day):
        row = self.row(code, day)
        return row is not None and row.get("status", "") in ("", "active")

    def chain(self, code, day):
        """The unit and everything above it, lowest first."""
        found = []
        while code:
            found.append(code)
            row = self.row(code, day)
            code = row["parent"] if row else ""
        return tuple(found)

    def memberships(self, code, day):
        """(network, role) of a unit on a day; the most specific rows decide."""
        row = self.row(code, day)
        if row is None:
            return frozenset()
        kind = row["kind"]
        of_facility = self.kind_class[kind] == "facility"
        administrative = self.kind_class[kind] == "administrative"
        deciding = {}
        for depth, unit in enumerate(self.chain(code, day)):
            if depth and (administrative or self.kind_class[self.units[unit][0]["kind"]] != "administrative"):
                # What is given to a place or a facility is not given to a place or facility below it.
                continue
            for member in self.members.get(unit, ()):
                network = self.networks[member["network"]]
                kinds = [one for one in member.get("kinds", "").split(";") if one]
                if depth and not (kind in kinds if kinds else of_facility):
                    continue
                if not within(member, day) or not self.network_open(member["network"], day):
                    continue
                known = deciding.setdefault(member["network"], (depth, []))
                if known[0] == depth:
                    known[1].append(member["role"])
        lowest = {}
        for network, (depth, roles) in deciding.items():
            kind = self.networks[network]["kind"]
            if "none" not in roles and kind in self.exclusive:
                lowest[kind] = min(lowest.get(kind, depth), depth)
        found = set()
        for network, (depth, roles) in deciding.items():
            kind = self.networks[network]["kind"]
            if "none" in roles or lowest.get(kind, depth) != depth:
                continue
            found.update((network, role) for role in roles)
        return frozenset(found)

    def network_open(self, code, day):
        row = self.networks[code]
        opened, closed = row.get("opened", ""), row.get("closed", "")
        return opt_day(opened, date.min) <= day < opt_day(closed, date.max) and row.get("status", "") in ("", "active")

    def facts(self, code, day):
        row = self.row(code, day)
        roles = {(role, self.networks[network]["kind"]) for network, role in self.memberships(code, day)}
        attributes = {
            row["attribute"]: row["value"] for row in self.attributes.get(code, ()) if within(row, day)
        }
        return {"kind": row["kind"], "roles": roles, "attributes": attributes}

    def working(self, code, day):
        for unit in self.chain(code, day):
            known = self.calendar.get((unit, day.isoformat()))
            if known is not None:
                return known
        return day.weekday() < 5

    def in_set(self, place, code, day):
        if not self.open(code, day):
            return False
        if place in self.networks:
            return any(network == place for network, _ in self.memberships(code, day))
        return place in self.chain(code, day)

    def on_map(self, place, code, day):
        """Whether a facility stands in an administrative place on the map of a day, whatever it was before."""
        stand, passed = code, set()
        while not self.open(stand, day):
            passed.add(stand)
            gone = [row for row in self.units[stand] if opt_day(row["opened"], date.min) <= day]
            if not gone:
                return False
            last = max(gone, key=lambda row: opt_day(row["closed"], date.max))
            after = [one for one in last.get("succeeded_by", "").split(";") if one in self.units and one not in passed]
            if not after:
                # It keeps its last place, so that no total loses it.
                return place == code or place in self.chain(last["parent"], day)
            stand = after[0]
        return place == code or place in self.chain(stand, day)

    # -- Duty

    def duty_day(self, code, one):
        for day in reversed(one.days()):
            if self.open(code, day):
                return day
        return None

    def extension(self, form, code, one):
        day = self.duty_day(code, one)
        above = self.chain(code, day)
        found = None
        for row in self.extensions[form]:
            if row["unit"] in above and row["span"][0] <= one.first and one.last <= row["span"][1]:
                found = row
        return found

    def duty(self, form, code, one):
        day = self.duty_day(code, one)
        spec = self.forms[form]
        if day is None or self.facts(code, day)["kind"] not in spec["kinds"]:
            return False
        if not opt_any(spec.get("from"), date.min) <= day < opt_any(spec.get("to"), date.max):
            return False
        for unit in self.chain(code, day):
            rows = self.duty_rows.get((form, unit))
            if rows:
                if not any(within(row, day) for row in rows):
                    return False
                break
        if spec.get("days") == "working" and not self.working(code, one.first):
            return False
        extension = self.extension(form, code, one)
        return extension is None or extension["due"] != "waived"

    def due(self, form, code, one):
        """When it is due, and until when it is on time."""
        spec = self.forms[form]
        rule = spec["due"]
        extension = self.extension(form, code, one)
        if extension is not None and extension["due"] != "waived":
            text = extension["due"]
            moment = datetime.fromisoformat(text if "T" in text else f"{text}T23:59")
        else:
            day = one.last + rule["days"] * DAY
            if rule.get("next_working_day"):
                while not self.working(code, day):
                    day += DAY
            moment = datetime.combine(day, time.fromisoformat(rule["time"]))
        grace = {"d": "days", "h": "hours", "m": "minutes"}
        text = spec.get("grace")
        late = moment + (timedelta(**{grace[text[-1]]: int(text[:-1])}) if text else timedelta())
        # A minute is over at its end.
        seconds = timedelta(seconds=59)
        return (moment + seconds).replace(tzinfo=self.zone), (late + seconds).replace(tzinfo=self.zone)

    def slots_of(self, code, span):
        """What a facility can report in a span: one entry a form-period."""
        found = []
        for form in self.forms.values():
            for one in parts(span, form["period_type"]):
                day = self.duty_day(code, one)
                if day is None:
                    continue
                facts = self.facts(code, day)
                if facts["kind"] in form["kinds"]:
                    found.append(Slot(self, form, code, one, day, facts))
        return found


def opt_any(value, default):
    return default if value is None else value if isinstance(value, date) else date.fromisoformat(value)


class Slot:
    """A form-period of a facility."""

    def __init__(self, world, form, code, one, day, facts):
        self.form, self.code, self.period, self.day, self.kind = form["code"], code, one, day, facts["kind"]
        self.asked = {
            line["element"]
            for line in form["line"]
            if (line["test"] is None or line["test"].passes(facts))
            and opt_any(line.get("from"), date.min) <= day < opt_any(line.get("to"), date.max)
        }
        self.required = {line["element"] for line in form["line"] if line.get("required", True)} & self.asked
        self.duty = world.duty(form["code"], code, one)
        self.ended = one.last < world.today
        self.due, self.late_after = world.due(form["code"], code, one)
        self.values = world.reports.get((code, form["code"], one.text()), {}) if self.ended else {}
        self.answered = any(self.values.get(element) is not None for element in self.asked)
        self.received = self.answered and self.duty and self.ended
        self.overdue = world.now > self.late_after

    def number(self, element):
        value = self.values.get(element)
        return value if isinstance(value, int) else None

    def answers(self, element):
        return self.values.get(element) is not None


# ---- Figures of a set


def completeness(world, slots):
    owed = [slot for slot in slots if slot.duty and slot.ended]
    received = [slot for slot in owed if slot.received]
    # Everything arrived a moment before the question was asked.
    late = sum(slot.overdue for slot in received)
    missing = sum(slot.overdue for slot in owed if not slot.received)
    return {
        "expected": len(owed),
        "received": len(received),
        "on_time": len(received) - late,
        "late": late,
        "not_yet_due": len(owed) - len(received) - missing,
        "missing": missing,
        "unexpected": sum(slot.answered and slot.ended and not slot.duty for slot in slots),
        "incomplete": sum(any(not slot.answers(e) for e in slot.required) for slot in received),
    }


class Figures:
    """Everything about one place and span."""

    def __init__(self, world, place, span, map_day=None):
        self.world, self.place, self.span, self.map_day = world, place, span, map_day
        self.network = place in world.networks
        self.area = None
        if self.network:
            areas = [unit for unit in world.networks[place].get("area", "").split(";") if unit]
            self.area = areas[0] if len(areas) == 1 else None
        self.last = {
            code for code in world.reporters if self.is_in(code, span.last)
        }
        self.cached = {}

    def is_in(self, code, day):
        """Whether a facility is in the set with what it gave on a day."""
        if self.map_day is None:
            return self.world.in_set(self.place, code, day)
        return self.world.open(code, day) and self.world.on_map(self.place, code, self.map_day)

    def level(self):
        if self.network:
            return self.world.networks[self.place]["kind"]
        row = self.world.row(self.place, self.span.last) or self.world.units[self.place][-1]
        return "facility" if self.world.kind_class[row["kind"]] in ("facility", "desk") else row["kind"]

    def slots(self, span=None):
        """As it was: each form-period on its own map."""
        span = span or self.span
        if span not in self.cached:
            world = self.world
            self.cached[span] = [
                slot
                for code in world.reporters
                for slot in world.slots_of(code, span)
                if self.is_in(code, slot.day)
            ]
        return self.cached[span]

    # -- Elements

    def element(self, code):
        spec = self.world.elements[code]
        stock = spec.get("over_time", "sum") != "sum"
        if spec.get("scope") == "area" and self.network:
            if self.area is None:
                return None
            return Figures(self.world, self.area, self.span).element(code)
        if spec.get("over_time") == "latest":
            return self.carried(code)
        slots = [slot for slot in self.slots() if code in slot.asked]
        if stock:
            slots = [
                slot
                for unit in self.last
                for slot in self.world.slots_of(unit, self.span)
                if code in slot.asked
            ]
        numbers = [slot for slot in slots if slot.number(code) is not None]
        not_applicable = [slot for slot in slots if slot.duty and slot.values.get(code) == "NA"]
        owed = [slot for slot in slots if slot.duty and slot.ended and slot.values.get(code) != "NA"]
        if stock:
            # The last answer is the one that counts, also if it is "not applicable".
            final = {}
            for slot in sorted(slots, key=lambda slot: slot.period.last):
                if slot.answers(code):
                    final[slot.code] = slot
            standing = [slot for slot in final.values() if slot.number(code) is not None]
            value = sum(slot.number(code) for slot in standing)
        else:
            value = sum(slot.number(code) for slot in numbers)
        # A desk is no facility.
        facility = lambda slot: self.world.kind_class[slot.kind] == "facility"
        valued = standing if stock else numbers
        facilities = {slot.code for slot in valued if facility(slot)}
        figure = {
            "value": value if valued else None,
            "reports": len(numbers),
            "expected": len(owed),
            "not_applicable": len(not_applicable),
            "facilities": len(facilities),
            "facilities_expected": len({slot.code for slot in owed if facility(slot)}),
        }
        waiting = any(slot.duty and not slot.answers(code) and not slot.overdue for slot in slots)
        overdue = any(slot.duty and slot.ended and not slot.answers(code) and slot.overdue for slot in slots)
        if valued:
            figure["state"] = "reported"
            several = max(len(facilities), figure["facilities_expected"]) > 1
            if spec.get("over_units") == "none" and several:
                figure["state"], figure["value"] = "not_additive", None
        elif overdue:
            figure["state"] = "missing"
        elif waiting:
            figure["state"] = "waiting"
        else:
            figure["state"] = "not_applicable"
        # A stock is of those there on the last day, as what they are then.
        kind = lambda slot: self.world.facts(slot.code, self.span.last)["kind"] if stock else slot.kind
        kinds = defaultdict(int)
        for slot in slots:
            if slot.duty and slot.values.get(code) != "NA":
                kinds[kind(slot)] += 0
        for slot in valued:
            kinds[kind(slot)] += 1
        figure["absent"] = sorted(kind for kind, count in kinds.items() if count == 0)
        return figure

    def carried(self, code):
        """A stock that is asked rarely: each facility's newest value that is not too old."""
        standing = [value for unit in self.last if isinstance(value := self.latest(unit, code), int)]
        if not standing:
            return {"value": None}
        return {"value": sum(standing), "state": "reported"}

    def latest(self, unit, code, last=None):
        world, spec, last = self.world, self.world.elements[code], last or self.span.last
        found = None
        for one, values in world.told_by(unit):
            # The newest answer, also if it is "not applicable".
            if values.get(code) is None or one.last >= world.today or one.last > last:
                continue
            months = (last.year - one.last.year) * 12 + last.month - one.last.month
            if months <= spec["carry_months"] and (found is None or one.last > found[0]):
                found = (one.last, values[code])
        return None if found is None else found[1]

    # -- Indicators

    def indicator(self, code):
        spec = self.world.indicators[code]
        definition = [
            one for one in spec["definition"] if opt_any(one.get("from"), date.min) <= self.span.last
        ][-1]
        trees = [
            Parser(definition[part]).whole()
            for part in ("numerator", "denominator", "value", "meets")
            if part in definition and not (part == "meets" and definition["kind"] == "registry_share")
        ]
        area = any(
            self.world.elements[term[1]].get("scope") == "area" for tree in trees for term in terms(tree)
        )
        if area and self.network:
            if self.area is None:
                return None
            figure = Figures(self.world, self.area, self.span).computed(spec, definition, trees)
        else:
            figure = self.computed(spec, definition, trees)
        figure["scope"] = "area" if area else "set"
        factor = definition.get("factor", 1)
        if figure["state"] == "reported" and figure["denominator"] == 0:
            figure["state"] = "not_applicable"
            figure["flags"].add("denominator_zero")
        exact = None
        if figure["state"] == "reported":
            exact = Fraction(figure["numerator"])
            if figure["denominator"] is not None:
                exact /= figure["denominator"]
            exact *= factor
        figure["exact"] = exact
        figure["decimals"] = spec.get("decimals", 1)
        self.judge(spec, definition, trees, figure)
        return figure

    def computed(self, spec, definition, trees):
        kind = definition["kind"]
        if kind == "reporting":
            return self.reporting(definition["measure"])
        if kind == "registry_share":
            return self.registry_share(definition)
        if kind == "share":
            return self.share(definition, trees[0])
        if kind == "growth":
            return self.growth(definition, trees[0])
        return self.pairs_figure(definition, trees)

    def blank(self, **more):
        figure = {
            "state": "reported", "numerator": None, "denominator": None, "matched": 0, "expected": 0,
            "absent": [], "waiting_for": [], "flags": set(), "usual": None,
        }
        return figure | more

    def reporting(self, measure):
        whole = completeness(self.world, self.slots())
        due = whole["on_time"] + whole["late"] + whole["missing"]
        top = {
            "received": whole["received"], "on_time": whole["on_time"], "late": whole["late"],
            "missing": whole["missing"], "corrected": 0,
        }[measure]
        bottom = {"received": whole["expected"], "corrected": whole["received"]}.get(measure, due)
        figure = self.blank(numerator=Fraction(top), denominator=Fraction(bottom), matched=bottom, expected=bottom)
        if bottom == 0:
            figure["state"] = "waiting" if whole["not_yet_due"] else "not_applicable"
        return figure

    def registry_share(self, definition):
        of, meets = Filter(definition["of"]), Filter(definition["meets"])
        world, last = self.world, self.span.last
        (kinds,) = of.kinds()
        if world.kind_class[kinds[0]] == "administrative":
            units = [
                code for code in world.units if world.open(code, last) and self.place in world.chain(code, last)
            ]
        else:
            units = self.last
        passing = [unit for unit in units if of.passes(world.facts(unit, last))]
        top = sum(meets.passes(world.facts(unit, last)) for unit in passing)
        whole = len(passing)
        figure = self.blank(numerator=Fraction(top), denominator=Fraction(whole), matched=whole, expected=whole)
        if not passing:
            figure["state"] = "not_applicable"
        return figure

    def time_of(self, term, definition):
        """The span a term counts over."""
        last = self.span.last
        if term[3] == "ytd":
            return Period(("span", date(last.year, 1, 1), last))
        if term[3] == "cumulative":
            return Period(("span", opt_any(definition.get("from"), None), last))
        return self.span

    def asked_in(self, term, q, day, stocks, unit, admitted_on):
        """A facility's form-periods in q at which the term's element is asked of it in this set."""
        world = self.world
        if term[2] is not None and not term[2].passes(world.facts(unit, admitted_on)):
            return []
        slots = []
        for slot in world.slots_of(unit, q):
            if term[1] not in slot.asked or not slot.duty:
                continue
            on = self.span.last if stocks else slot.day
            if world.open(unit, on) and world.in_set(self.place, unit, on):
                slots.append(slot)
        return slots

    def grain(self, all_terms, definition):
        rank = None
        for unit in self.world.reporters:
            for term in all_terms:
                if self.world.elements[term[1]].get("over_time") == "latest":
                    continue
                for slot in self.world.slots_of(unit, self.time_of(term, definition)):
                    if term[1] not in slot.asked or not slot.duty:
                        continue
                    if not self.world.in_set(self.place, unit, slot.day):
                        continue
                    if term[2] is not None and not term[2].passes(self.world.facts(unit, slot.day)):
                        continue
                    kind = slot.period.type
                    rank = kind if rank is None or RANK[kind] > RANK[rank] else rank
        return rank

    def pairs(self, all_terms, definition, grain):
        """(facility, q) with a term asked: kind, whether matched, what is still to come."""
        world, found = self.world, []
        pair_min = Fraction(str(definition.get("pair_min", 0.8)))
        stock = lambda term: world.elements[term[1]].get("over_time", "sum") != "sum"
        stocks = all(stock(term) for term in all_terms)
        carried = lambda term: world.elements[term[1]].get("over_time") == "latest"
        longest = min((self.time_of(term, definition) for term in all_terms), key=lambda span: span.first)
        only_carried = all(carried(term) for term in all_terms)
        periods = [self.span] if only_carried else parts(longest, grain)
        for unit in world.reporters:
            for q in periods:
                day = self.span.last if only_carried and world.open(unit, self.span.last) else world.duty_day(unit, q)
                if day is None:
                    continue
                asked, matched, open_slots = {}, True, []
                for term in all_terms:
                    if not self.time_of(term, definition).first <= q.first:
                        continue
                    if carried(term):
                        if term[2] is not None and not term[2].passes(world.facts(unit, day)):
                            continue
                        if not world.in_set(self.place, unit, self.span.last if stocks else day):
                            continue
                        value = self.latest(unit, term[1], q.last)
                        owed = [
                            slot
                            for slot in world.slots_of(unit, year_of(q.last))
                            if term[1] in slot.asked and slot.duty
                        ]
                        if value is None and not owed:
                            continue
                        asked[term] = owed
                        if value is None:
                            matched = False
                            open_slots += [slot for slot in owed if not slot.answers(term[1]) and not slot.overdue]
                        continue
                    slots = self.asked_in(term, q, day, stocks, unit, day)
                    if not slots:
                        continue
                    asked[term] = slots
                    answered = [slot for slot in slots if slot.answers(term[1])]
                    enough = bool(answered) if stock(term) else len(answered) >= pair_min * len(slots)
                    if not enough:
                        matched = False
                    open_slots += [slot for slot in slots if not slot.answers(term[1]) and not slot.overdue]
                if asked:
                    found.append(
                        Pair(unit, q, day, world.facts(unit, day)["kind"], asked, matched, open_slots)
                    )
        return found

    def value_of(self, tree, unit, pairs, definition, absent_raises=False):
        """A formula's value for one facility over its matched pairs."""
        world = self.world

        def leaf(node):
            if node[0] in ("working_days", "days_in_period"):
                days = [
                    day
                    for pair in pairs
                    if pair.q.first >= self.span.first
                    for day in pair.q.days()
                    if world.open(unit, day) and world.in_set(self.place, unit, day) and day < world.today
                ]
                if node[0] == "working_days":
                    days = [day for day in days if world.working(unit, day)]
                return Fraction(len(days))
            element, how = node[1], node[3]
            span = self.time_of(node, definition)
            used = [pair for pair in pairs if node in pair.asked and pair.q.first >= span.first]
            over_time = world.elements[element].get("over_time", "sum")
            if not used:
                if absent_raises:
                    raise Absent
                return Fraction(0)
            if over_time == "latest":
                value = self.latest(unit, element)
                return Fraction(value if isinstance(value, int) else 0)
            if over_time != "sum":
                finals = []
                for pair in sorted(used, key=lambda pair: pair.q.first):
                    slots = sorted(pair.asked[node], key=lambda slot: slot.period.last)
                    answers = [slot.values[element] for slot in slots if slot.answers(element)]
                    finals += answers[-1:]
                if how == "mean":
                    finals = [value for value in finals if value != "NA"]
                elif finals:
                    finals = [value for value in finals[-1:] if value != "NA"]
                if not finals:
                    if absent_raises:
                        raise Absent
                    return Fraction(0)
                return Fraction(sum(finals), len(finals)) if how == "mean" else Fraction(finals[-1])
            total, any_number = 0, False
            for pair in used:
                for slot in world.slots_of(unit, pair.q):
                    if element not in slot.asked or not world.in_set(self.place, unit, slot.day):
                        continue
                    if how == "on_working_days" and not world.working(unit, slot.day):
                        continue
                    if slot.number(element) is not None:
                        total += slot.number(element)
                        any_number = True
            if absent_raises and not any_number:
                raise Absent
            return Fraction(total)

        return evaluate(tree, leaf)

    def judge_absent(self, figure, pairs):
        """Kinds of which nothing is matched leave no value."""
        kinds = defaultdict(int)
        for pair in pairs:
            kinds[pair.kind] += pair.matched
        figure["absent"] = sorted(kind for kind, matched in kinds.items() if not matched)
        if figure["absent"]:
            waiting = {
                (slot.form, slot.code, slot.period.text(), slot.due)
                for pair in pairs
                if pair.kind in figure["absent"]
                for slot in pair.open_slots
            }
            figure["waiting_for"] = sorted(waiting, key=lambda one: (one[3], one))
            figure["state"] = "waiting" if waiting else "missing"
            figure["numerator"] = figure["denominator"] = None

    def pairs_figure(self, definition, trees):
        world = self.world
        all_terms = list(dict.fromkeys(term for tree in trees for term in terms(tree)))
        counting = [node for tree in trees for node in nodes(tree, "facilities")]
        if not all_terms:
            value = evaluate(trees[0], self.facilities_leaf(None))
            whole = int(self.facilities_leaf(None)(("facilities", None)))
            return self.blank(numerator=value, matched=whole, expected=whole)
        grain = self.grain(all_terms, definition)
        only_carried = all(world.elements[t[1]].get("over_time") == "latest" for t in all_terms)
        if grain is None and not only_carried:
            return self.blank(state="not_applicable")
        if not only_carried and not parts(self.span, grain):
            return self.blank(state="too_fine")
        pairs = self.pairs(all_terms, definition, grain)
        figure = self.blank(expected=len(pairs), matched=sum(pair.matched for pair in pairs))
        if not pairs:
            return figure | {"state": "not_applicable"}
        by_unit = defaultdict(list)
        for pair in pairs:
            if pair.matched:
                by_unit[pair.unit].append(pair)
        sums = []
        for tree in trees:
            if counting and nodes(tree, "facilities"):
                area = any(world.elements[t[1]].get("scope") == "area" for t in all_terms)
                desks = [world.row(unit, self.span.last)["parent"] for unit in by_unit] if area else None
                sums.append(evaluate(tree, self.facilities_leaf(desks)))
            else:
                sums.append(
                    sum((self.value_of(tree, unit, some, definition) for unit, some in by_unit.items()), Fraction(0))
                )
        figure["numerator"] = sums[0]
        figure["denominator"] = sums[1] if len(sums) > 1 else None
        figure["usual"] = self.usual(definition, trees, pairs, grain, only_carried)
        self.judge_absent(figure, pairs)
        return figure

    def facilities_leaf(self, areas):
        def leaf(node):
            last, world = self.span.last, self.world
            return Fraction(
                sum(
                    world.kind_class[world.row(unit, last)["kind"]] == "facility"
                    and (node[1] is None or node[1].passes(world.facts(unit, last)))
                    and (areas is None or any(area in world.chain(unit, last) for area in areas))
                    for unit in self.last
                )
            )

        return leaf

    def usual(self, definition, trees, pairs, grain, only_carried):
        """The matched pairs' share of what all usually come to."""
        if only_carried:
            return "?"
        if all(pair.matched for pair in pairs):
            return Fraction(1)
        world = self.world
        below = terms(trees[-1])
        periods, one = [], parts(self.span, grain)[0]
        for _ in range(12):
            one = before(one)
            periods.append(one)
        span = Period(("span", periods[-1].first, periods[0].last))

        @cache
        def weight(unit):
            if not below:
                return Fraction(1)
            total = Fraction(0)
            for element in dict.fromkeys(term[1] for term in below):
                stock = world.elements[element].get("over_time", "sum") != "sum"
                by_period = defaultdict(dict)
                for at, values in world.told_by(unit):
                    if not isinstance(values.get(element), int):
                        continue
                    if span.first <= at.first and at.last <= span.last and at.last < world.today:
                        if RANK[at.type] <= RANK[grain]:
                            of = {"day": day_period, "month": month_of}[grain](at.first)
                            by_period[of][at.last] = values[element]
                for some in by_period.values():
                    total += some[max(some)] if stock else sum(some.values())
            return total

        whole = sum((weight(pair.unit) for pair in pairs), Fraction(0))
        if whole == 0:
            return None
        return sum((weight(pair.unit) for pair in pairs if pair.matched), Fraction(0)) / whole

    def growth(self, definition, tree):
        all_terms = terms(tree)
        grain = self.grain(all_terms, definition)
        if grain is None:
            return self.blank(state="not_applicable")
        if not parts(self.span, grain):
            return self.blank(state="too_fine")
        now = self.pairs(all_terms, definition, grain)
        first = parts(self.span, grain)
        earlier = Figures(
            self.world, self.place, Period(("span", year_earlier(first[0]).first, year_earlier(first[-1]).last))
        )
        then = {(pair.unit, pair.q): pair for pair in earlier.pairs(all_terms, definition, grain)}
        now_by, then_by = defaultdict(list), defaultdict(list)
        for pair in now:
            other = then.get((pair.unit, year_earlier(pair.q)))
            pair.matched = pair.matched and other is not None and other.matched
            if pair.matched:
                now_by[pair.unit].append(pair)
                then_by[pair.unit].append(other)
        figure = self.blank(expected=len(now), matched=sum(pair.matched for pair in now), usual="?")
        if not now:
            return figure | {"state": "not_applicable"}
        at = sum((self.value_of(tree, unit, some, definition) for unit, some in now_by.items()), Fraction(0))
        was = sum((earlier.value_of(tree, unit, some, definition) for unit, some in then_by.items()), Fraction(0))
        figure["numerator"], figure["denominator"] = at - was, was
        self.judge_absent(figure, now)
        return figure

    def share(self, definition, tree):
        of = Filter(definition["of"])
        world, last, all_terms = self.world, self.span.last, terms(tree)
        grain = self.grain(all_terms, definition)
        passing = [unit for unit in self.last if of.passes(world.facts(unit, last))]
        pair_min = Fraction(str(definition.get("pair_min", 0.8)))
        pairs = []
        for unit in passing:
            asked, matched, open_slots = {}, True, []
            for term in all_terms:
                stock = world.elements[term[1]].get("over_time", "sum") != "sum"
                slots = [
                    slot
                    for slot in world.slots_of(unit, self.time_of(term, definition))
                    if term[1] in slot.asked and slot.duty
                    and (term[2] is None or term[2].passes(world.facts(unit, slot.day)))
                ]
                if not slots:
                    continue
                asked[term] = slots
                answered = [slot for slot in slots if slot.answers(term[1])]
                enough = bool(answered) if stock else len(answered) >= pair_min * len(slots)
                matched = matched and enough
                open_slots += [slot for slot in slots if not slot.answers(term[1]) and not slot.overdue]
            if asked:
                pairs.append(Pair(unit, self.span, last, world.facts(unit, last)["kind"], asked, matched, open_slots))
        figure = self.blank(expected=len(pairs), matched=sum(pair.matched for pair in pairs), usual="?")
        if not pairs:
            return figure | {"state": "not_applicable"}
        if not parts(self.span, grain):
            return figure | {"state": "too_fine"}
        meeting = 0
        for pair in pairs:
            if pair.matched:
                try:
                    meeting += bool(evaluate(tree, self.share_leaf(pair)))
                except Absent:
                    pass
        figure["numerator"], figure["denominator"] = Fraction(meeting), Fraction(figure["matched"])
        self.judge_absent(figure, pairs)
        return figure

    def share_leaf(self, pair):
        def leaf(node):
            stock = self.world.elements[node[1]].get("over_time", "sum") != "sum"
            slots = sorted(pair.asked.get(node, ()), key=lambda slot: slot.period.last)
            answers = [slot.values[node[1]] for slot in slots if slot.answers(node[1])]
            numbers = [value for value in (answers[-1:] if stock else answers) if value != "NA"]
            if not numbers:
                raise Absent
            return Fraction(numbers[-1] if stock else sum(numbers))

        return leaf

    # -- Targets

    def judge(self, spec, definition, trees, figure):
        target = self.target(spec["code"])
        figure["direction"] = spec["direction"] if target is None else target["direction"]
        figure["low"] = figure["high"] = figure["met"] = figure["target"] = None
        figure["source"] = None
        if target is None:
            return
        low = Fraction(target["low"]) if target["low"] else None
        high = Fraction(target["high"]) if target["high"] else None
        figure["low"], figure["high"], figure["source"] = low, high, target["source"]
        if low is None or high is None:
            figure["target"] = high if low is None else low
        exact = figure["exact"]
        if exact is None:
            return
        inside = (low is None or exact >= low) and (high is None or exact <= high)
        if target["direction"] == "watch":
            if not inside:
                figure["flags"].add("outside_range")
        else:
            figure["met"] = inside

    def target(self, code):
        last, best = self.span.last, None
        for order, row in enumerate(self.world.targets):
            if row["indicator"] != code or not within(row, last):
                continue
            rank = self.fits(row)
            if rank is None:
                continue
            rank = (*rank, row["from"], order)
            if best is None or rank > best[0]:
                best = (rank, row)
        return best[1] if best else None

    def fits(self, row):
        last, world = self.span.last, self.world
        attribute = 0
        if row["attribute"]:
            if self.network or world.row(self.place, last) is None:
                return None
            name, value = row["attribute"].split("=")
            if world.facts(self.place, last)["attributes"].get(name) != value:
                return None
            attribute = 1
        level = not row["level"] or row["level"] == self.level()
        if row["unit"]:
            if not row["level"]:
                return (3, attribute) if row["unit"] == self.place else None
            below = not self.network and row["unit"] in world.chain(self.place, last)
            return (2, attribute) if level and below else None
        if row["level"]:
            return (1, attribute) if level else None
        return (0, attribute)


class Pair:
    """A facility and a period of the formula's grain."""

    def __init__(self, unit, q, day, kind, asked, matched, open_slots):
        self.unit, self.q, self.day, self.kind = unit, q, day, kind
        self.asked, self.matched, self.open_slots = asked, matched, open_slots
