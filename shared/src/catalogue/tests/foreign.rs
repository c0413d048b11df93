//! Another country's catalogue loads with no change of code.

use super::*;

#[test]
fn a_catalogue_of_england_loads() {
    let catalogue = Catalogue::load(include_bytes!("england.toml")).unwrap();
    assert_eq!((catalogue.elements.len(), catalogue.forms.len()), (18, 1));
    assert_eq!(catalogue.time_zone.iana_name(), Some("Europe/London"));
    let form = &catalogue.forms[0];
    assert!(form.due.next_working_day);
    let indicator = &catalogue.indicators[0];
    let day = |text: &str| text.parse::<Date>().unwrap();
    assert_eq!(indicator.definition_on(day("2023-09-30")).version, "2010");
    assert_eq!(indicator.definition_on(day("2023-10-01")).version, "2023");
    assert_eq!(indicator.definition_on(day("2023-10-01")).pair_min, 950);
    assert_eq!(
        broken(&catalogue, "ae_monthly", &[("att_t1", 3), ("over4h_t1", 4)], None, "2024-06"),
        [("A1a".to_owned(), Severity::Error)]
    );
}
