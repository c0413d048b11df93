use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Expr<NamedTerm> {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn fault(text: &str) -> (usize, Expected) {
    let error = parse(text).expect_err(text);
    (error.column, error.expected)
}

/// Every term is its name's length; `gone` is absent.
struct Lengths;

impl Operands for Lengths {
    fn term(&self, _: &Term) -> Option<Rational> {
        Some(Rational::from(6))
    }
    fn over(&self, _: Over, _: &Term) -> Option<Rational> {
        None
    }
    fn fact(&self, fact: Fact) -> Option<Rational> {
        (fact == Fact::Days).then(|| Rational::from(31))
    }
}

fn holds(text: &str) -> Result<bool, NotEvaluated> {
    let expr = read(text)
        .map(&mut |_| Ok::<_, ()>(Term { what: Counted::Facilities, filter: Filter::default() }))
        .unwrap();
    condition(&expr, &Lengths)
}

#[test]
fn precedence_and_printing() {
    for (text, printed) in [
        ("a+b*c<=d", "a + b * c <= d"),
        ("(a+b)*c=d", "(a + b) * c = d"),
        ("a-(b - c)>0", "a - (b - c) > 0"),
        ("a -b- c>0", "a - b - c > 0"),
        ("a-b", "a-b"),
        ("((a=1))", "a = 1"),
        ("a=1 and b=2 or c=3 and not d=4", "a = 1 and b = 2 or c = 3 and not d = 4"),
        ("a=1 and (b=2 or c=3)", "a = 1 and (b = 2 or c = 3)"),
        ("a=0 implies b=0 implies c=0", "a = 0 implies b = 0 implies c = 0"),
        ("(a=0 implies b=0) implies c=0", "(a = 0 implies b = 0) implies c = 0"),
        ("not (a=1 or b=2)", "not (a = 1 or b = 2)"),
        ("open_days in {0,1}", "open_days in {0, 1}"),
        ("-a*-(b+1)<0", "-a * -(b + 1) < 0"),
        ("prev( x )<=max(a,b/2)", "prev(x) <= max(a, b / 2)"),
        ("working_days ( )>=1", "working_days() >= 1"),
        (
            "x[ kind=vc|th;role=lead@county_community|*@city ; hospital_type=tcm ]",
            "x[kind=vc|th; role=lead@county_community|*@city; hospital_type=tcm]",
        ),
        ("facilities[grade=2a]", "facilities[grade=2a]"),
        ("andy = ordinary", "andy = ordinary"),
        ("abs(诊疗 - 门诊) <= 10", "abs(诊疗 - 门诊) <= 10"),
    ] {
        assert_eq!(read(text).to_string(), printed);
        assert_eq!(read(printed).to_string(), printed);
    }
}

#[test]
fn faults_name_their_place() {
    use Expected as E;
    for (text, column, expected) in [
        ("", 1, E::Something),
        ("  ", 1, E::Something),
        ("a <=", 5, E::Operand),
        ("a <= b c", 8, E::Operator),
        ("a < b < c", 7, E::OneComparison),
        ("a and b = 1", 1, E::Condition),
        ("a = 1 and b", 11, E::Condition),
        ("(a = 1) + 2", 1, E::Number),
        ("not a", 5, E::Condition),
        ("(a = 1", 7, E::Sign(")")),
        ("a in {}", 7, E::WholeNumber),
        ("a in {1", 8, E::Sign("}")),
        ("a <= 1.3 * b", 6, E::WholeNumber),
        ("a <= 99999999999999999999", 6, E::WholeNumber),
        ("a <= 1b", 6, E::WholeNumber),
        ("log(a) > 1", 1, E::Function("log".to_owned())),
        ("prev(a + 1) > 1", 8, E::Element),
        ("prev(1) > 1", 6, E::Element),
        ("prev(facilities) > 1", 6, E::Element),
        ("诊疗 <= 门诊 ~", 10, E::Operator),
        ("a[", 3, E::FilterPart),
        ("a[kind]", 7, E::Sign("=")),
        ("a[kind=]", 8, E::Name),
        ("a[kind=x", 9, E::Sign("]")),
        ("or = 1", 1, E::Operand),
        ("max(a) > 1", 6, E::Sign(",")),
    ] {
        assert_eq!(fault(text), (column, expected), "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = |n: usize| format!("{}a{} = 1", "(".repeat(n), ")".repeat(n));
    let most = usize::try_from(EXPR_DEPTH_MAX).unwrap();
    read(&deep(most));
    assert_eq!(fault(&deep(most + 1)).1, Expected::LessNesting);
    assert_eq!(fault(&"not ".repeat(499)).1, Expected::LessNesting);
    assert_eq!(fault(&"-".repeat(1999)).1, Expected::LessNesting);
    assert_eq!(fault(&"a = 1 implies ".repeat(100)).1, Expected::LessNesting);
    assert_eq!(fault(&"a".repeat(EXPR_BYTES_MAX + 1)).1, Expected::ShorterText);
    // A long flat chain is no nesting; evaluating it is no trouble either.
    assert_eq!(holds(&format!("{}0 <= a", "1 + ".repeat(490))), Ok(false));
}

#[test]
fn evaluation_is_exact_and_absence_spreads() {
    assert_eq!(holds("a = 6"), Ok(true));
    assert_eq!(holds("a / 4 * 4 = 6"), Ok(true), "fractions, not rounded");
    assert_eq!(holds("a / 4 in {1, 2}"), Ok(false));
    assert_eq!(holds("1 / 3 + 1 / 6 = 1 / 2"), Ok(true));
    assert_eq!(holds("2 - a < 0 and abs(2 - a) = 4"), Ok(true), "no wrap-around below zero");
    assert_eq!(holds("min(a, 2) = 2 and max(a, 2) = 6"), Ok(true));
    assert_eq!(holds("a = 1 implies a = 2"), Ok(true));
    assert_eq!(holds("not a != 6"), Ok(true));
    assert_eq!(holds("days_in_period() = 31"), Ok(true));
    assert_eq!(holds("a = 6 or prev(a) = 1"), Err(NotEvaluated::Absent));
    assert_eq!(holds("a = 1 and prev(a) = 1"), Err(NotEvaluated::Absent));
    assert_eq!(holds("1 / (a - 6) = 1"), Err(NotEvaluated::DivisionByZero));
    let big = u64::MAX;
    assert_eq!(holds(&format!("{big} * {big} * {big} > 1")), Err(NotEvaluated::Overflow));
}

fn any_expr() -> impl Strategy<Value = Expr<NamedTerm>> {
    let term =
        ("[a-z_][a-z0-9_]{0,6}", prop::option::of("[a-z0-9_]{1,5}")).prop_map(|(name, kind)| {
            // A letter in front keeps clear of the words of the language.
            let parts =
                kind.map(|kind| FilterPart { key: "kind".into(), choices: vec![(kind, None)] });
            let filter = NamedFilter { parts: parts.into_iter().collect() };
            NamedTerm { name: format!("x{name}"), filter, at: 0 }
        });
    let over = prop::sample::select(Over::ALL.to_vec());
    let leaf = prop_oneof![
        any::<u64>().prop_map(Expr::Number),
        term.clone().prop_map(Expr::Term),
        (over, term).prop_map(|(over, term)| Expr::Over(over, term)),
        prop::sample::select(Fact::ALL.to_vec()).prop_map(Expr::Fact),
    ];
    let numbers = leaf.prop_recursive(4, 24, 2, |inner| {
        use Arithmetic::{Add, Divide, Max, Min, Multiply, Subtract};
        let op = prop::sample::select(vec![Add, Subtract, Multiply, Divide, Max, Min]);
        prop_oneof![
            inner.clone().prop_map(|a| Expr::Negate(Box::new(a))),
            inner.clone().prop_map(|a| Expr::Abs(Box::new(a))),
            (op, inner.clone(), inner).prop_map(|(op, a, b)| Expr::Arithmetic(
                op,
                Box::new(a),
                Box::new(b)
            )),
        ]
    });
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let sign =
        prop::sample::select(vec![LessOrEqual, Less, GreaterOrEqual, Greater, Equal, NotEqual]);
    let comparison = prop_oneof![
        (sign, numbers.clone(), numbers.clone()).prop_map(|(op, a, b)| Expr::Compare(
            op,
            Box::new(a),
            Box::new(b)
        )),
        (numbers, prop::collection::vec(any::<u64>(), 1..3))
            .prop_map(|(a, set)| Expr::In(Box::new(a), set)),
    ];
    comparison.prop_recursive(4, 12, 2, |inner| {
        let op = prop::sample::select(vec![Logic::And, Logic::Or, Logic::Implies]);
        prop_oneof![
            inner.clone().prop_map(|a| Expr::Not(Box::new(a))),
            (op, inner.clone(), inner).prop_map(|(op, a, b)| Expr::Logic(
                op,
                Box::new(a),
                Box::new(b)
            )),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(expr in any_expr()) {
        let printed = expr.to_string();
        if printed.len() <= EXPR_BYTES_MAX {
            let bare = |expr: &Expr<NamedTerm>| {
                expr.map(&mut |term| Ok::<_, ()>(NamedTerm { at: 0, ..term.clone() })).unwrap()
            };
            prop_assert_eq!(bare(&read(&printed)), expr);
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,80}") {
        let _either = (parse(&text), parse_filter(&text));
    }

    #[test]
    fn no_text_of_the_language_panics(
        words in prop::collection::vec(prop::sample::select(vec![
            "a", "(", ")", "[", "]", "kind=", "role=", "lead@x", "|", ";", "+", "-", "*", "/", "<=", "<", "=", "!=",
            "in", "{", "}", "1", ",", "and", "or", "not", "implies", "prev(", "abs(", "max(", "facilities", "诊",
        ]), 0..40),
    ) {
        let text = words.join(" ");
        if let Err(error) = parse(&text) {
            prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at));
            prop_assert!(!error.text(crate::catalogue::Lang::Zh).is_empty());
        }
    }
}
