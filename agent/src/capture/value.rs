//! Values as files write them.

use banyan_shared::report::Value;

/// A number, `NA`, or nothing.
pub(crate) fn show(value: Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::Missing => String::new(),
        Value::NotApplicable => "NA".to_owned(),
    }
}
