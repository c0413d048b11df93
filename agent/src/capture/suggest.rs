//! The codes nearest to one that does not exist.

/// Most suggestions.
const SUGGESTIONS_MAX: usize = 3;
/// Longest code compared, in characters.
const LENGTH_MAX: usize = 64;

/// ` ≈ a, b`, which reads in both languages, or nothing if no code is near.
pub(super) fn nearest<'a>(wanted: &str, among: impl Iterator<Item = &'a str>) -> String {
    let wanted: Vec<char> = wanted.chars().take(LENGTH_MAX).collect();
    let limit = (wanted.len() / 3).max(2);
    let mut near: Vec<(usize, &str)> = among
        .map(|code| (distance(&wanted, &code.chars().take(LENGTH_MAX).collect::<Vec<_>>()), code))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort_unstable();
    near.truncate(SUGGESTIONS_MAX);
    if near.is_empty() {
        return String::new();
    }
    let codes: Vec<&str> = near.into_iter().map(|(_, code)| code).collect();
    format!(" ≈ {}", codes.join(", "))
}

/// How many letters must be changed, added or left out.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_code() {
        let codes = ["outpatient_visits", "emergency_visits", "open_days"];
        assert_eq!(nearest("outpatient_vists", codes.into_iter()), " ≈ outpatient_visits");
        assert_eq!(nearest("open_day", codes.into_iter()), " ≈ open_days");
        assert_eq!(nearest("xyz", codes.into_iter()), "");
    }
}
