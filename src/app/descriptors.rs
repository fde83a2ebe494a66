//! How many files and connections the process may have open.

/// What is kept for files, the admin port and whatever else is not a connection of a gateway, as a part of the limit.
const KEPT_PART: usize = 4;

/// The least and the most that is kept.
const KEPT: (usize, usize) = (16, 1_024);

/// How many connections of gateways there may be, so that enough is left to read files: what proves who is there is followed
/// all the time. No limit where the system does not say one.
pub(super) fn connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    limit(&limits).map_or(usize::MAX, |limit| left(limit, open))
}

/// The limit that is in force, from the text that Linux gives.
fn limit(text: &str) -> Option<usize> {
    text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn left(limit: usize, open: usize) -> usize {
    let kept = (limit / KEPT_PART).clamp(KEPT.0, KEPT.1);
    limit.saturating_sub(open + kept).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_is_kept_for_files() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max processes             127235               127235               processes \n\
            Max open files            1024                 524288               files     \n";
        assert_eq!(limit(text), Some(1_024));
        assert_eq!(limit(&text.replace("1024 ", "unlimited ")), None);
        assert_eq!(limit(""), None);
        for (limit, open, expected) in [(1_024, 20, 748), (80, 20, 40), (1 << 20, 20, (1 << 20) - 1_044), (32, 30, 1)] {
            assert_eq!(left(limit, open), expected, "{limit} {open}");
        }
    }
}
