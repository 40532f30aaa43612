//! Durations as people read them; how people write them is `proto::settings`.

use std::time::Duration;

/// Writes a duration so that its size is seen: `340 ms`, `12 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.subsec_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rough() {
        assert_eq!(rough(Duration::from_millis(340)), "340 ms");
        assert_eq!(rough(Duration::from_secs(119)), "119 s");
        assert_eq!(rough(Duration::from_secs(3600)), "60 min");
        assert_eq!(rough(Duration::from_secs(500_000)), "5 d");
    }
}
