//! Where the next connection goes: home, which is the centre's own door, or to the broker the centre has told
//! of.
//!
//! Whoever has something to prove first (a code, a grant without a certificate) goes home; everyone else to
//! the broker. If nothing was answered there, whatever the reason, the next connection goes home, and the one
//! after that to the broker again: what waits is delivered even if the broker takes no certificate, whoever
//! needs another one comes where it is given out, and neither end has to be right about the other for ever.

/// Where connections go, and what became of the last one.
#[derive(Debug, Default)]
pub(crate) struct Route {
    /// The present connection goes to the broker.
    at_broker: bool,
    /// The broker has not answered last time: the next connection goes home.
    broker_failed: bool,
    /// The centre has named the broker on the present connection.
    told: bool,
}

impl Route {
    /// The address of the next connection. `broker` is none for whoever must go home.
    pub(crate) fn choose<'a>(&mut self, home: &'a str, broker: Option<&'a str>) -> &'a str {
        let chosen = broker.filter(|_| !self.broker_failed);
        self.at_broker = chosen.is_some();
        self.told = false;
        chosen.unwrap_or(home)
    }

    /// Whether the present connection goes to the broker.
    pub(crate) fn is_at_broker(&self) -> bool {
        self.at_broker
    }

    /// The centre has named the broker.
    pub(crate) fn tell(&mut self) {
        self.told = true;
    }

    /// The connection is over; `answered` says whether a hello was answered on it. Whether the broker is to
    /// be forgotten: the centre's door has answered and not named it.
    pub(crate) fn end(&mut self, answered: bool) -> bool {
        self.broker_failed = self.at_broker && !answered;
        !self.at_broker && answered && !self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "home:8883";
    const BROKER: Option<&str> = Some("broker:8883");

    #[test]
    fn the_broker_comes_first_and_home_in_between_when_it_is_silent() {
        let mut route = Route::default();
        for _ in 0..3 {
            assert_eq!(route.choose(HOME, BROKER), "broker:8883");
            assert!(!route.end(true));
        }
        for _ in 0..3 {
            assert_eq!(route.choose(HOME, BROKER), "broker:8883");
            assert!(!route.end(false));
            assert_eq!(route.choose(HOME, BROKER), HOME);
            assert!(!route.end(false), "nobody answered: nothing is known");
        }
        assert_eq!(route.choose(HOME, None), HOME, "no broker, or something to prove first");
    }

    #[test]
    fn a_broker_the_centre_no_longer_names_is_forgotten() {
        let mut route = Route::default();
        route.choose(HOME, BROKER);
        route.end(false);
        route.choose(HOME, BROKER);
        assert!(route.end(true));
        route.choose(HOME, BROKER);
        route.end(false);
        route.choose(HOME, BROKER);
        route.tell();
        assert!(!route.end(true));
    }
}
