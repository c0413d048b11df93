#!/usr/bin/env python3
"""A small random province, and every figure of it computed a second time.

    recompute.py generate SEED NOW CATALOGUE TARGETS DIR    writes the registry, files of counts and plan.json
    recompute.py check DIR                                  compares DIR/answers.json with figures of its own

Needs Python 3.11 and nothing else.
"""

import csv
import json
import random
import shutil
import sys
from datetime import date, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import figures
from figures import DAY, Figures, World, before, month_of, parts, period, year_of

DIFFERENCES_SHOWN = 40


# ---- A province


class Province:
    """A registry with everything that makes figures hard: moves, gaps, kinds that change, networks that overlap."""

    def __init__(self, seed, now, folder):
        self.random = random.Random(seed)
        self.now, self.folder = now, folder
        self.month = month_of(before(month_of(now.date())).first)
        self.units, self.networks, self.members = [], [], []
        self.attributes, self.duties, self.extensions, self.calendar = [], [], [], []
        self.sites = {}

    def chance(self, share):
        return self.random.random() < share

    def mid(self):
        """A day inside the month."""
        return self.month.first + self.random.randint(4, 24) * DAY

    def unit(self, code, kind, parent, opened="", closed="", status="", succeeded_by=""):
        self.units.append([code, f"{code} {kind}", kind, parent, str(opened), str(closed), status, succeeded_by])

    def member(self, network, unit, role="member", since="", until="", kinds=""):
        self.members.append([network, unit, role, str(since), str(until), kinds])

    def build(self):
        pick = self.random
        self.unit("P", "province", "")
        self.unit("X-1", "external", "")
        self.calendar += [["P", str(self.month.first + n * DAY), "off"] for n in pick.sample(range(27), 3)]
        counties, townships, villages = [], [], []
        for c in range(3):
            city = f"C{c}"
            self.unit(city, "city", "P")
            self.calendar.append([city, str(self.mid()), "working"])
            self.unit(f"{city}-CT", "city_hospital", city)
            for k in range(pick.randint(1, 3)):
                county = f"K{c}{k}"
                counties.append(county)
                self.unit(county, "county", city)
                for t in range(pick.randint(1, 3)):
                    township = f"T{c}{k}{t}"
                    townships.append((county, township))
                    if self.chance(0.12) and counties[:-1]:
                        # A township that goes to another county.
                        day = self.mid()
                        self.unit(township, "township", pick.choice(counties[:-1]), "", day)
                        self.unit(township, "township", county, day)
                    else:
                        self.unit(township, "township", county)
                    for v in range(pick.randint(1, 3)):
                        village = f"V{c}{k}{t}{v}"
                        villages.append(village)
                        self.unit(village, "village", township)
        for c, kind in enumerate(("national", "provincial", "provincial_tcm")):
            if c == 0 or self.chance(0.7):
                code = f"RC{c}"
                self.unit(code, "regional_centre", f"C{c}")
                self.attributes.append([code, "grade", kind, "", ""])
                self.attributes.append([code, "performance_grade", pick.choice(["a", "a_plus", "b"]), "", ""])
        for county in counties:
            self.county(county)
        for county, township in townships:
            self.township(county, township)
        for village in villages:
            self.clinic(village, villages)
        self.groups(counties, townships)
        self.rules(counties, townships)

    def county(self, county):
        pick = self.random
        self.unit(f"{county}-CB", "county_desk", county)
        for code, kind in ((f"{county}-CN", "county_hospital"), (f"{county}-MC", "maternal_child_hospital")):
            if kind == "county_hospital" or self.chance(0.4):
                self.unit(code, kind, county)
                self.attributes.append([code, "hospital_type", pick.choice(["general", "tcm"]), "", ""])
                if self.chance(0.6):
                    since = self.mid() if self.chance(0.3) else ""
                    self.attributes.append([code, "assisted", "yes", str(since), ""])

    def township(self, county, township):
        day, code = self.mid(), f"{township}-TH"
        if self.chance(0.2):
            # A township that becomes a street.
            self.unit(code, "township_health_centre", township, "", day)
            self.unit(code, "community_health_centre", township, day)
        elif self.chance(0.3):
            self.unit(code, "community_health_centre", township)
        else:
            self.unit(code, "township_health_centre", township)

    def clinic(self, village, villages):
        pick, code, kind = self.random, f"{village}-VC", "village_clinic"
        match pick.randint(0, 11):
            case 0:
                day = self.mid()
                self.unit(code, kind, village, "", day)
                self.unit(code, kind, pick.choice(villages), day)
            case 1:
                others = [f"{other}-VC" for other in villages if other != village]
                self.unit(code, kind, village, "", self.mid(), "", pick.choice(others) if others else "")
            case 2:
                self.unit(code, kind, village, self.mid())
            case 3:
                day = self.month.first + pick.randint(3, 12) * DAY
                self.unit(code, kind, village, "", day)
                self.unit(code, kind, village, day + pick.randint(2, 12) * DAY)
            case 4:
                self.unit(code, kind, village, self.month.first, "", "planned")
            case _:
                self.unit(code, kind, village)

    def groups(self, counties, townships):
        pick = self.random

        def network(code, kind, area=""):
            self.networks.append([code, code, kind, area])

        centre = lambda township: f"{township}-TH"
        for county in counties:
            code = f"CC-{county}"
            network(code, "county_community", county)
            if self.chance(0.25):
                self.member(code, county, kinds="township_health_centre;village_clinic")
            else:
                self.member(code, county, since=self.mid() if self.chance(0.2) else "")
            self.member(code, f"{county}-CN", "lead")
            if self.chance(0.7):
                self.member(code, f"{county}-CN", "shared_centre")
            below = [township for home, township in townships if home == county]
            if len(below) > 1 and self.chance(0.6):
                # Two communities in one county: the township's own row is the lower one.
                network(f"{code}-2", "county_community", county)
                self.member(f"{code}-2", below[0])
            if self.chance(0.4):
                self.member(code, centre(below[-1]), "none", self.mid() if self.chance(0.5) else "")
            if self.chance(0.5):
                network(f"SC-{county}", "subcentre_catchment")
                self.member(f"SC-{county}", centre(pick.choice(below)), "subcentre")
            if self.chance(0.6):
                network(f"PS-{county}", "paired_support")
                self.member(f"PS-{county}", "X-1", "donor")
                self.member(f"PS-{county}", county, "recipient", self.mid() if self.chance(0.3) else "")
        for c in range(3):
            if self.chance(0.3):
                continue
            own = [county for county in counties if county[1] == str(c)]
            area = own if self.chance(0.3) else pick.sample(own, 1)
            network(f"CG-C{c}", "city_group", ";".join(area))
            self.member(f"CG-C{c}", f"C{c}-CT", "lead")
            for county in area:
                self.member(f"CG-C{c}", county, kinds="community_health_centre;village_clinic")
            if self.chance(0.5):
                self.member(f"CG-C{c}", f"{pick.choice(own)}-CN", since=self.mid())
        network("SA-1", "specialist_alliance")
        for county in pick.sample(counties, min(2, len(counties))):
            self.member("SA-1", county)

    def rules(self, counties, townships):
        pick = self.random
        if self.chance(0.6):
            self.duties.append(["vc_daily", pick.choice(counties), str(self.mid()), ""])
        if self.chance(0.4):
            self.duties.append(["thc_monthly", pick.choice(counties), str(self.month.first - 50 * DAY), ""])
            self.duties.append(["thc_daily", pick.choice(townships)[1], "", str(self.mid())])
        later = (self.now + timedelta(days=40)).strftime("%Y-%m-%dT18:00")
        for form in ("vc_monthly", "thc_monthly", "chc_monthly", "hosp_monthly", "county_monthly", "rc_monthly"):
            if self.chance(0.4):
                unit = pick.choice([*counties, "C0", "C1"])
                self.extensions.append([form, unit, self.month.text(), later, "x"])
        for _ in range(2):
            first = self.mid()
            days = f"{first}..{first + pick.randint(1, 9) * DAY}"
            self.extensions.append(["vc_daily", pick.choice(counties), days, later, "x"])
        first = self.mid()
        for form in ("vc_daily", "thc_daily", "chc_daily"):
            days = f"{first}..{first + pick.randint(0, 8) * DAY}"
            self.extensions.append([form, pick.choice(townships)[1], days, "waived", "x"])
        if self.chance(0.3):
            self.extensions.append(["hosp_monthly", pick.choice(counties), self.month.text(), "waived", "x"])

    def write(self):
        headers = {
            "units": "code,name,kind,parent,opened,closed,status,succeeded_by",
            "networks": "code,name,kind,area",
            "members": "network,unit,role,from,to,kinds",
            "attributes": "unit,attribute,value,from,to",
            "duties": "form,unit,from,to",
            "extensions": "form,unit,period,due,reason",
            "calendar": "unit,date,day",
        }
        for name, header in headers.items():
            header, rows = header.split(","), getattr(self, name)
            if name == "calendar":
                header = [*header, "name"]
                rows = [[*row, ""] for row in {tuple(row[:2]): row for row in rows}.values()]
            write_csv(self.folder / f"{name}.csv", header, rows)


def write_csv(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


# ---- Counts


def due_soon(world, slots, now):
    """What must not fall due while the test runs."""
    near = [
        slot
        for slot in slots
        if any(now - timedelta(hours=1) <= moment <= now + timedelta(hours=6) for moment in (slot.due, slot.late_after))
    ]
    return sorted({(slot.form, slot.period.text()) for slot in near})


def counts(pick, world, month):
    """What facilities say: by report, by element."""
    caps = {
        (form["code"], line["element"]): line.get("max", world.elements[line["element"]].get("max", 1 << 40))
        for form in world.forms.values()
        for line in form["line"]
    }
    flags = {"open_days", "ecg_device_working", "img_centre_connected"}
    said = {}
    history = figures.Period(("span", (month.first - 400 * DAY).replace(day=1), month.first - DAY))
    this = figures.Period(("span", month.first, world.today))
    # What is told once a year stands for long after.
    last_year = year_of(month.first.replace(month=1) - DAY)
    yearly = {form["code"] for form in world.forms.values() if form["period_type"] == "year"}
    for unit in world.reporters:
        care = pick.choice([1.0, 0.97, 0.9, 0.6, 0.0])
        row = world.row(unit, month.first)
        tells_yearly = row is not None and world.kind_class[row["kind"]] == "desk"
        for span in (history, this, *([last_year] if tells_yearly else [])):
            for slot in world.slots_of(unit, span):
                if not slot.ended or (span is last_year) != (slot.form in yearly):
                    continue
                daily = slot.period.type == "day"
                if span is history:
                    share = 0.7 if not daily else 0.5 if slot.period.first > month.first - 14 * DAY else 0.02
                else:
                    share = care
                if pick.random() >= share:
                    continue
                values = {}
                for element in sorted(slot.asked):
                    roll = pick.random()
                    if roll < 0.03:
                        values[element] = "NA"
                    elif roll < 0.07:
                        continue
                    elif element in flags:
                        values[element] = pick.choice([0, 1, 1])
                    elif element == "disease_types_ytd":
                        values[element] = pick.randint(60, 150)
                    else:
                        top = min(caps[slot.form, element], pick.choice([3, 40, 4000 if not daily else 60]))
                        values[element] = pick.choice([0, pick.randint(0, top)])
                if values:
                    said[unit, slot.form, slot.period.text()] = values
    return said


def long_rows(said):
    return [
        [*key, element, value]
        for key, values in sorted(said.items())
        for element, value in values.items()
    ]


def generate(seed, now, catalogue, targets, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(catalogue, folder / "catalogue.toml")
    shutil.copy(targets, folder / "targets.csv")
    now = datetime.fromisoformat(now)
    province = Province(seed, now, folder)
    province.build()
    province.write()
    world = World(folder, now)
    pick = province.random
    month, running = province.month, month_of(now.astimezone(world.zone).date())
    whole = figures.Period(("span", month.first, running.last))
    slots = [slot for unit in world.reporters for slot in world.slots_of(unit, whole)]
    slots += [slot for unit in world.reporters for slot in world.slots_of(unit, year_of(running.first))]
    later = (now + timedelta(days=3)).strftime("%Y-%m-%dT18:00")
    province.extensions = [
        [form, "P", text, later, "x"] for form, text in due_soon(world, slots, now)
    ] + province.extensions
    province.write()
    world = World(folder, now)
    said = counts(pick, world, month)
    header = ["facility", "form", "period", "element", "value"]
    write_csv(folder / "counts.csv", header, long_rows(said))
    # A later file says otherwise of some; what it does not name stays.
    again = {}
    for key in pick.sample(sorted(said), len(said) // 20):
        numbers = [element for element, value in said[key].items() if value not in ("NA", 0)]
        if numbers:
            again[key] = {element: said[key][element] - 1 for element in pick.sample(numbers, 1)}
            said[key] |= again[key]
    write_csv(folder / "again.csv", header, long_rows(again))
    write_csv(folder / "before.csv", header, long_rows(said))
    acts = []
    recent = [key for key in sorted(said) if period(key[2]).first >= month.first]
    for key in pick.sample(recent, 4):
        acts.append(["withdraw", *key, "--reason", "wrong_period"])
        del said[key]
    for key in pick.sample([key for key in recent if key in said], 4):
        numbers = [element for element, value in said[key].items() if isinstance(value, int) and value]
        if numbers:
            element = pick.choice(numbers)
            said[key][element] -= 1
            acts.append(
                ["correct", *key, f"{element}={said[key][element]}", "--reason", "recount", "--override", "verified"]
            )
    write_csv(folder / "counted.csv", header, long_rows(said))
    queries = []
    for span in (month.text(), running.text()):
        queries.append(["query", "P", span])
        for by in ("city", "county", "township", "facility"):
            queries.append(["query", "P", span, "--by", by])
        for kind in ("county_community", "city_group", "specialist_alliance"):
            queries.append(["query", "P", span, "--by", "network", "--network", kind])
        for network, _, kind, area in province.networks:
            if area and ";" not in area:
                queries.append(["query", network, span])
    # Several periods of a form, in one.
    several = f"{month.text()}..{running.text()}"
    for by in ([], ["--by", "county"], ["--by", "network", "--network", "county_community"]):
        queries.append(["query", "P", several, *by])
    # On today's map; and as known before the acts.
    for by in ([], ["--by", "city"], ["--by", "county"], ["--by", "township"]):
        queries.append(["query", "P", month.text(), *by, "--membership", "today"])
    before_acts = [["query", "P", month.text(), *by] for by in ([], ["--by", "county"], ["--by", "facility"])]
    tables = ("units", "networks", "members", "attributes", "duties", "calendar", "targets")
    init = [argument for name in tables for argument in (f"--{name}", f"{name}.csv")]
    plan = {
        "init": [*init, "--catalogue", "catalogue.toml"], "tables": ["extensions.csv"], "imports": ["counts.csv", "again.csv"],
        "acts": acts, "queries": queries, "before_acts": before_acts,
    }
    (folder / "plan.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    print(f"seed {seed}: {len(world.reporters)} facilities, {len(said)} reports, {len(acts)} acts")


# ---- Comparing


class Check:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.answers = json.loads((self.folder / "answers.json").read_text(encoding="utf-8"))
        self.worlds = {
            when: World(self.folder, datetime.fromisoformat(asked["answer"]["as_of"]), counted)
            for when, counted in (("after", "counted"), ("before", "before"))
            for asked in [next(one for one in self.answers if one["when"] == when)]
        }
        self.world = self.worlds["after"]
        self.compared, self.with_value, self.different = 0, 0, []
        self.states = {}
        self.where = ""

    def differs(self, what, theirs, ours):
        self.different.append(f"{self.where} {what}: the answer says {theirs!r}, recomputed {ours!r}")

    def same(self, what, theirs, ours):
        self.compared += 1
        if theirs != ours:
            self.differs(what, theirs, ours)

    def number(self, what, theirs, ours):
        """Numbers as written in JSON against exact ones."""
        self.compared += 1
        if (theirs is None) != (ours is None):
            self.differs(what, theirs, None if ours is None else float(ours))
        elif ours is not None and abs(Fraction(theirs) - ours) > Fraction(1, 10**9) * max(1, abs(ours)):
            self.differs(what, theirs, float(ours))

    def run(self):
        for asked in self.answers:
            answer = asked["answer"]
            self.world = self.worlds[asked["when"]]
            span = period(answer["period"])
            today = "today" in asked["arguments"]
            map_day = self.world.today if today else None
            for row in answer["rows"]:
                key = row["key"]
                place = key.get("network") or key.get("unit") or answer["unit"]
                if "--by" in asked["arguments"] and place == answer["unit"]:
                    # What lies in no place of that kind has no name of its own.
                    continue
                self.where = f"{' '.join(asked['arguments'])} {asked['when']} [{place}]"
                figures_of = Figures(self.world, place, span, map_day)
                self.elements(figures_of, row["elements"], "network" in key)
                if not today:
                    self.indicators(figures_of, row["indicators"])
            if "--by" not in asked["arguments"]:
                self.where = " ".join([*asked["arguments"], asked["when"]])
                slots = Figures(self.world, answer["unit"], span, map_day).slots()
                ours = figures.completeness(self.world, slots)
                for name, number in ours.items():
                    self.same(f"completeness {name}", answer["completeness"][name], number)
        print(
            f"{self.compared} comparisons, {self.with_value} indicators with a value, "
            f"{len(self.different)} differences; states {self.states}"
        )
        for text in self.different[:DIFFERENCES_SHOWN]:
            print(text)
        return not self.different

    def elements(self, figures_of, theirs, by_network):
        for code in self.world.elements:
            ours = figures_of.element(code)
            figure = theirs.get(code)
            if ours is None:
                continue
            if figure is None:
                if by_network and self.world.elements[code].get("scope") == "area":
                    # Of a network only its own page has figures of its area.
                    continue
                if ours["value"] is not None or ours.get("state") not in (None, "not_applicable"):
                    self.differs(f"element {code}", None, ours)
                continue
            for name, value in ours.items():
                if name == "absent":
                    if figure["state"] == "reported":
                        flags = sorted(flag[7:] for flag in figure["flags"] if flag.startswith("absent:"))
                        self.same(f"element {code} absent", flags, value)
                elif name != "state" or value is not None:
                    self.same(f"element {code} {name}", figure[name], value)

    def indicators(self, figures_of, theirs):
        level = figures_of.level()
        for code, spec in self.world.indicators.items():
            if "levels" in spec and level not in spec["levels"]:
                if code in theirs:
                    self.differs(f"indicator {code}", theirs[code]["state"], "not shown at this level")
                continue
            ours = figures_of.indicator(code)
            figure = theirs.get(code)
            if ours is None:
                continue
            if figure is None:
                if ours["state"] not in ("not_applicable", "too_fine"):
                    self.differs(f"indicator {code}", None, ours["state"])
                continue
            self.one(code, figure, ours)

    def one(self, code, figure, ours):
        what = f"indicator {code}"
        self.states[ours["state"]] = self.states.get(ours["state"], 0) + 1
        self.same(f"{what} state", figure["state"], ours["state"])
        if ours["state"] == "reported":
            self.with_value += 1
            for part in ("numerator", "denominator"):
                self.number(f"{what} {part}", figure[part], ours[part])
            self.compared += 1
            half = Fraction(1, 2 * 10 ** ours["decimals"]) + Fraction(1, 10**9)
            if figure["value"] is None or abs(Fraction(figure["value"]) - ours["exact"]) > half:
                self.differs(f"{what} value", figure["value"], float(ours["exact"]))
        else:
            self.same(f"{what} value", figure["value"], None)
        for part in ("matched", "expected"):
            self.same(f"{what} coverage {part}", figure["coverage"][part], ours[part])
        if ours["usual"] != "?":
            share = figure["coverage"]["share_of_usual"]
            self.compared += 1
            if (share is None) != (ours["usual"] is None) or (
                share is not None and abs(Fraction(share) - ours["usual"]) > Fraction(1, 200)
            ):
                self.differs(f"{what} share_of_usual", share, ours["usual"] and float(ours["usual"]))
        self.same(f"{what} absent", sorted(figure["absent"]), ours["absent"])
        minute = len("2026-01-31T23:59")
        waits = [(one["form"], one["unit"], one["due"][:minute]) for one in figure["waiting_for"]]
        more = [int(flag.split(":")[1]) for flag in figure["flags"] if flag.startswith("waiting_for_more:")]
        own = [(form, unit, due.isoformat()[:minute]) for form, unit, _, due in ours["waiting_for"]]
        self.same(f"{what} number waited for", len(waits) + sum(more), len(own))
        if not more:
            self.same(f"{what} waiting_for", sorted(waits), sorted(own))
        for part in ("low", "high", "target"):
            self.number(f"{what} {part}", figure[part], ours[part])
        self.same(f"{what} target_source", figure["target_source"], ours["source"])
        self.same(f"{what} direction", figure["direction"], ours["direction"])
        self.same(f"{what} met", figure["met"], ours["met"])
        self.same(f"{what} scope", figure["scope"], ours["scope"])
        for flag in ("denominator_zero", "outside_range"):
            self.same(f"{what} flag {flag}", flag in figure["flags"], flag in ours["flags"])


def main(arguments):
    match arguments:
        case ["generate", seed, now, catalogue, targets, folder]:
            generate(int(seed), now, catalogue, targets, folder)
            return 0
        case ["check", folder]:
            return 0 if Check(folder).run() else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
