//! Web server: HTTP/1.1 by hand, because what a library refuses is what a decky must record.

mod parse;
mod site;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::event::{AuthMethod, AuthOutcome, Evidence, Payload, Severity};
use domain::service::ServiceOptions;

use self::parse::{Body, Head};
use self::site::{Answer, Site};
use crate::persona::Facts;
use crate::serve::{Buffered, Read, Service, Session, Wire};

/// Longest head of a request.
const MAX_HEAD: usize = 16 * 1024;
/// Longest line of a head.
const MAX_LINE: usize = 8 * 1024;
/// Longest body that is read.
const MAX_BODY: usize = 64 * 1024;
/// How much of a body is kept.
const KEEP_BODY: usize = 4 * 1024;
/// Most requests on one connection.
const MAX_REQUESTS: usize = 100;

/// The service.
pub(crate) struct Http {
    site: Site,
}

/// One request, or what came instead.
enum Request {
    Whole {
        head: Head,
        body: Vec<u8>,
    },
    /// Not HTTP, or not within bounds; with the status that says so.
    Bad {
        status: u16,
        reason: &'static str,
        bytes: Vec<u8>,
    },
    /// Nothing more came.
    End,
}

impl Http {
    pub(crate) fn new(options: &ServiceOptions, facts: Arc<Facts>) -> Self {
        Self {
            site: Site::new(options, &facts),
        }
    }

    async fn read(&self, stream: &mut Buffered<Wire>) -> io::Result<Request> {
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let line = match stream.line(MAX_LINE).await? {
                Read::Whole(line) => line,
                Read::TooLong(start) => {
                    bytes.extend_from_slice(&start);
                    return Ok(Request::Bad {
                        status: 414,
                        reason: "a line too long",
                        bytes,
                    });
                }
                Read::End(start) if start.is_empty() && bytes.is_empty() => {
                    return Ok(Request::End);
                }
                Read::End(start) => {
                    bytes.extend_from_slice(&start);
                    return Ok(Request::Bad {
                        status: 400,
                        reason: "a request cut off",
                        bytes,
                    });
                }
            };
            if line.is_empty() && bytes.is_empty() {
                // Empty lines before a request are skipped (RFC 9112, section 2.2).
                continue;
            }
            let first = bytes.is_empty();
            let done = line.is_empty();
            bytes.extend_from_slice(&line);
            bytes.push(b'\n');
            if first && Head::parse(&bytes).is_none() {
                bytes.extend_from_slice(stream.held());
                return Ok(Request::Bad {
                    status: 400,
                    reason: "no HTTP request line",
                    bytes,
                });
            }
            if done {
                break;
            }
            if bytes.len() > MAX_HEAD {
                return Ok(Request::Bad {
                    status: 431,
                    reason: "a head too long",
                    bytes,
                });
            }
        }
        let Some(head) = Head::parse(&bytes) else {
            return Ok(Request::Bad {
                status: 400,
                reason: "malformed header fields",
                bytes,
            });
        };
        let body = match head.body() {
            Some(Body::None) => Vec::new(),
            Some(Body::Length(length)) if length > MAX_BODY => {
                return Ok(Request::Bad {
                    status: 413,
                    reason: "a body too long",
                    bytes,
                });
            }
            Some(Body::Length(length)) => {
                continue_if_expected(&head, stream).await?;
                while stream.held().len() < length {
                    if !stream.fill().await? {
                        break;
                    }
                }
                stream.take(length)
            }
            Some(Body::Chunked) => {
                continue_if_expected(&head, stream).await?;
                match chunked(stream).await? {
                    Some(body) => body,
                    None => {
                        return Ok(Request::Bad {
                            status: 400,
                            reason: "malformed chunks",
                            bytes,
                        });
                    }
                }
            }
            None => {
                return Ok(Request::Bad {
                    status: 400,
                    reason: "a malformed length",
                    bytes,
                });
            }
        };
        Ok(Request::Whole { head, body })
    }

    async fn report(&self, session: &Session, head: &Head, body: &[u8], answer: &Answer) {
        if let Some((user, password)) = head.field("authorization").and_then(basic) {
            session
                .auth(AuthMethod::Basic, &user, &password, AuthOutcome::Rejected)
                .await;
        }
        if head.method == b"POST"
            && let Some((user, password)) = parse::credentials(body)
        {
            session
                .auth(AuthMethod::Form, &user, &password, AuthOutcome::Rejected)
                .await;
        }
        let field = |(name, value): &(Vec<u8>, Vec<u8>)| {
            (
                Evidence::new(name.as_slice()),
                Evidence::new(value.as_slice()),
            )
        };
        let payload = Payload::Request {
            method: Evidence::new(head.method.as_slice()),
            target: Evidence::new(head.target.as_slice()),
            headers: head.fields.iter().map(field).collect(),
            body: Evidence::new(&body[..body.len().min(KEEP_BODY)]),
            status: answer.status,
        };
        session.emit(Severity::Notice, payload).await;
    }
}

#[async_trait]
impl Service for Http {
    async fn serve(&self, session: &Session, wire: Wire) -> io::Result<()> {
        let mut stream = Buffered::new(wire);
        for number in 1..=MAX_REQUESTS {
            match self.read(&mut stream).await? {
                Request::End => return Ok(()),
                Request::Bad {
                    status,
                    reason,
                    bytes,
                } => {
                    session.raw(reason, &bytes).await;
                    let answer = self.site.error(status);
                    let bytes = self.site.encode(&answer, session.now(), false, true);
                    return stream.write(&bytes).await;
                }
                Request::Whole { head, body } => {
                    let answer = self.site.answer(&head, &body);
                    self.report(session, &head, &body, &answer).await;
                    let keep = head.keeps_alive() && number < MAX_REQUESTS;
                    let with_body = head.method != b"HEAD";
                    let bytes = self.site.encode(&answer, session.now(), keep, with_body);
                    stream.write(&bytes).await?;
                    if !keep {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

async fn continue_if_expected(head: &Head, stream: &mut Buffered<Wire>) -> io::Result<()> {
    let expected = head
        .field("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    if expected {
        stream.write(b"HTTP/1.1 100 Continue\r\n\r\n").await
    } else {
        Ok(())
    }
}

/// Reads a chunked body; none when it is malformed or too long.
async fn chunked(stream: &mut Buffered<Wire>) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Read::Whole(line) = stream.line(256).await? else {
            return Ok(None);
        };
        let Some(length) =
            parse::chunk_length(&line).filter(|length| body.len() + length <= MAX_BODY)
        else {
            return Ok(None);
        };
        if length == 0 {
            // Trailers, at most as many as a head may have.
            for _ in 0..64 {
                match stream.line(MAX_LINE).await? {
                    Read::Whole(line) if line.is_empty() => return Ok(Some(body)),
                    Read::Whole(_) => {}
                    Read::TooLong(_) | Read::End(_) => return Ok(None),
                }
            }
            return Ok(None);
        }
        while stream.held().len() < length {
            if !stream.fill().await? {
                return Ok(None);
            }
        }
        body.extend(stream.take(length));
        if stream.line(2).await? != Read::Whole(Vec::new()) {
            return Ok(None);
        }
    }
}

/// The name and password of an `Authorization: Basic` field.
fn basic(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some((pair[..colon].to_vec(), pair[colon + 1..].to_vec()))
}
