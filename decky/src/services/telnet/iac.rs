//! The commands inside a telnet stream: answers negotiation once per option, remembers what the
//! client offers (RFC 854, 855, 1091).

use crate::persona::Family;

const SE: u8 = 240;
const IP: u8 = 244;
const SB: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
const IAC: u8 = 255;

const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;
const TERMINAL_TYPE: u8 = 24;
const WINDOW_SIZE: u8 = 31;
const SPEED: u8 = 32;
const FLOW: u8 = 33;
const DISPLAY: u8 = 35;
const AUTHENTICATION: u8 = 37;
const ENVIRONMENT: u8 = 39;

/// Most commands that are remembered.
const MAX_SEEN: usize = 40;
/// Longest parameters of an option that are kept.
const MAX_PARAMETERS: usize = 256;

/// What a byte was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Data.
    Data(u8),
    /// The interrupt key of the client.
    Interrupt,
}

/// Takes the commands out of a stream.
#[derive(Default)]
pub(super) struct Negotiator {
    state: State,
    parameters: Vec<u8>,
    answered: Vec<(u8, u8)>,
    seen: Vec<(u8, u8)>,
    terminal: Vec<u8>,
}

#[derive(Default)]
enum State {
    #[default]
    Data,
    Command,
    Option(u8),
    Parameters,
    ParametersCommand,
}

impl Negotiator {
    /// What the server says first, as the telnetd of the system does.
    pub(super) const fn opening(family: Family) -> &'static [u8] {
        match family {
            Family::Debian => &[
                IAC,
                DO,
                TERMINAL_TYPE,
                IAC,
                DO,
                SPEED,
                IAC,
                DO,
                DISPLAY,
                IAC,
                DO,
                ENVIRONMENT,
            ],
            Family::Bsd => &[IAC, DO, AUTHENTICATION],
            Family::Embedded => &[
                IAC,
                DO,
                ECHO,
                IAC,
                DO,
                WINDOW_SIZE,
                IAC,
                DO,
                FLOW,
                IAC,
                WILL,
                ECHO,
                IAC,
                WILL,
                SUPPRESS_GO_AHEAD,
            ],
            Family::Windows => &[
                IAC,
                DO,
                AUTHENTICATION,
                IAC,
                WILL,
                ECHO,
                IAC,
                WILL,
                SUPPRESS_GO_AHEAD,
                IAC,
                DO,
                ENVIRONMENT,
                IAC,
                DO,
                WINDOW_SIZE,
                IAC,
                DO,
                0,
                IAC,
                WILL,
                0,
            ],
            Family::Cisco => &[
                IAC,
                WILL,
                ECHO,
                IAC,
                WILL,
                SUPPRESS_GO_AHEAD,
                IAC,
                DO,
                TERMINAL_TYPE,
                IAC,
                DO,
                WINDOW_SIZE,
            ],
        }
    }

    /// What a telnetd that waits for the client's answer says after it.
    pub(super) const fn second(family: Family) -> Option<&'static [u8]> {
        match family {
            Family::Debian | Family::Bsd => Some(&[
                IAC,
                WILL,
                SUPPRESS_GO_AHEAD,
                IAC,
                DO,
                WINDOW_SIZE,
                IAC,
                WILL,
                ECHO,
            ]),
            Family::Embedded | Family::Windows | Family::Cisco => None,
        }
    }

    /// Takes one byte; what must be answered goes to `reply`.
    pub(super) fn feed(&mut self, byte: u8, reply: &mut Vec<u8>) -> Option<Item> {
        let state = std::mem::take(&mut self.state);
        match (state, byte) {
            (State::Data, IAC) => self.state = State::Command,
            (State::Data, byte) | (State::Command, byte @ IAC) => return Some(Item::Data(byte)),
            (State::Command, IP) => return Some(Item::Interrupt),
            (State::Command, SB) => {
                self.parameters.clear();
                self.state = State::Parameters;
            }
            (State::Command, verb @ WILL..=DONT) => self.state = State::Option(verb),
            (State::Command, _) => {}
            (State::Option(verb), option) => self.negotiate(verb, option, reply),
            (State::Parameters, IAC) => self.state = State::ParametersCommand,
            (State::Parameters, byte) | (State::ParametersCommand, byte @ IAC) => {
                self.state = State::Parameters;
                if self.parameters.len() < MAX_PARAMETERS {
                    self.parameters.push(byte);
                }
            }
            (State::ParametersCommand, SE) => {
                if let [TERMINAL_TYPE, 0, name @ ..] = self.parameters.as_slice() {
                    self.terminal = name.to_vec();
                }
            }
            (State::ParametersCommand, _) => {}
        }
        None
    }

    fn negotiate(&mut self, verb: u8, option: u8, reply: &mut Vec<u8>) {
        if self.seen.len() < MAX_SEEN {
            self.seen.push((verb, option));
        }
        // One answer for each: a client that repeats itself must not make a loop.
        if self.answered.contains(&(verb, option)) || self.answered.len() >= MAX_SEEN {
            return;
        }
        self.answered.push((verb, option));
        match (verb, option) {
            (WILL, TERMINAL_TYPE) => {
                reply.extend([IAC, SB, TERMINAL_TYPE, 1, IAC, SE]);
            }
            // What was asked for needs no answer.
            (WILL, WINDOW_SIZE | SPEED | FLOW | DISPLAY | AUTHENTICATION | ENVIRONMENT | 0)
            | (DO, ECHO | SUPPRESS_GO_AHEAD | 0) => {}
            (WILL, SUPPRESS_GO_AHEAD) => reply.extend([IAC, DO, option]),
            (WILL, _) => reply.extend([IAC, DONT, option]),
            (DO, _) => reply.extend([IAC, WONT, option]),
            _ => {}
        }
    }

    /// What the client negotiated, as words, and the terminal that it named.
    pub(super) fn seen(&self) -> (String, &[u8]) {
        let words: Vec<String> = self
            .seen
            .iter()
            .map(|(verb, option)| {
                let verb = match *verb {
                    WILL => "WILL",
                    WONT => "WONT",
                    DO => "DO",
                    _ => "DONT",
                };
                format!("{verb} {option}")
            })
            .collect();
        (words.join(","), &self.terminal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(bytes: &[u8]) -> (Vec<u8>, Vec<u8>, String) {
        let mut negotiator = Negotiator::default();
        let mut reply = Vec::new();
        let data = bytes
            .iter()
            .filter_map(|byte| match negotiator.feed(*byte, &mut reply) {
                Some(Item::Data(byte)) => Some(byte),
                Some(Item::Interrupt) | None => None,
            })
            .collect();
        (data, reply, negotiator.seen().0)
    }

    #[test]
    fn negotiation_is_answered_once_and_taken_out_of_the_data() {
        let (data, reply, seen) = fed(b"a\xff\xfb\x18b\xff\xfb\x18\xff\xff\xff\xfd\x22c");
        assert_eq!(data, b"ab\xffc");
        assert_eq!(reply, b"\xff\xfa\x18\x01\xff\xf0\xff\xfc\x22");
        assert_eq!(seen, "WILL 24,WILL 24,DO 34");
    }

    #[test]
    fn the_terminal_is_remembered() {
        let mut negotiator = Negotiator::default();
        for byte in b"\xff\xfa\x18\0XTERM\xff\xf0" {
            negotiator.feed(*byte, &mut Vec::new());
        }
        assert_eq!(negotiator.seen().1, b"XTERM");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_answer_without_bound(bytes: Vec<u8>) {
            let (data, reply, _) = fed(&bytes);
            prop_assert!(data.len() <= bytes.len());
            prop_assert!(reply.len() <= MAX_SEEN * 6);
        }
    }
}
