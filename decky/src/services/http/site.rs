//! The pages of a site and the manner of its server, both from the seed.

use domain::service::ServiceOptions;
use time::OffsetDateTime;
use time::macros::format_description;

use super::parse::Head;
use crate::persona::Facts;

/// What is answered to a request.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    kind: &'static str,
    /// Fields beyond those of every answer.
    extra: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// A file of the site, with the time when it was made.
    file: bool,
}

/// Whose manner of writing pages and heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Apache,
    Nginx,
    Iis,
    Other,
}

/// The site of one decky.
pub(super) struct Site {
    server: String,
    style: Style,
    host: String,
    start: String,
    title: String,
    realm: String,
    made: OffsetDateTime,
    tag: String,
    robots: String,
    icon: Vec<u8>,
}

impl Site {
    pub(super) fn new(options: &ServiceOptions, facts: &Facts) -> Self {
        let server = match options.text("server") {
            Some(server) => server,
            None => facts
                .seed
                .choose("http", facts.release.http)
                .copied()
                .unwrap_or("nginx"),
        };
        let style = if server.starts_with("Apache") {
            Style::Apache
        } else if server.starts_with("nginx") {
            Style::Nginx
        } else if server.starts_with("Microsoft-IIS") {
            Style::Iis
        } else {
            Style::Other
        };
        const TITLES: [&str; 10] = [
            "Intranet",
            "Asset Manager",
            "Service Desk",
            "Warehouse Portal",
            "Time Tracking",
            "Document Archive",
            "Monitoring",
            "Customer Portal",
            "Backup Console",
            "Build Dashboard",
        ];
        const REALMS: [&str; 5] = [
            "Restricted Area",
            "Administration",
            "Authorized Users Only",
            "admin",
            "Management",
        ];
        const PLACES: [&str; 8] = [
            "/admin/",
            "/backup/",
            "/old/",
            "/tmp/",
            "/private/",
            "/cgi-bin/",
            "/export/",
            "/staging/",
        ];
        let title = match options.text("title") {
            Some(title) => title,
            None => facts
                .seed
                .choose("http title", &TITLES)
                .copied()
                .unwrap_or("Intranet"),
        };
        let place = facts
            .seed
            .choose("http robots", &PLACES)
            .copied()
            .unwrap_or("/backup/");
        let title = escape(title);
        let build = facts.hex("http build", 8);
        Self {
            style,
            host: facts.hostname.clone(),
            start: format!(
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<link rel=\"icon\" href=\"/favicon.ico\">\n<meta name=\"generator\" content=\"build {build}\">\n</head>\n<body>\n<h1>{title}</h1>\n<p>Please <a href=\"/login\">sign in</a> to continue.</p>\n</body>\n</html>\n"
            ),
            title,
            realm: facts
                .seed
                .choose("http realm", &REALMS)
                .copied()
                .unwrap_or("admin")
                .to_owned(),
            made: facts.installed()
                + time::Duration::seconds(
                    i64::try_from(facts.seed.pick("http made", 86_400 * 30)).unwrap_or(0),
                ),
            tag: facts.hex("http tag", 13),
            robots: format!("User-agent: *\nDisallow: /admin/\nDisallow: {place}\n"),
            icon: icon(facts),
            server: server.to_owned(),
        }
    }

    /// What is answered to a request.
    pub(super) fn answer(&self, head: &Head, _body: &[u8]) -> Answer {
        let path = head.path();
        let allowed = if path == "/login" {
            "GET, HEAD, POST, OPTIONS"
        } else {
            "GET, HEAD, OPTIONS"
        };
        match head.method.as_slice() {
            b"GET" | b"HEAD" => self.page(&path),
            b"POST" if path == "/login" || path == "/login/" => self.login(true),
            b"POST" => match self.page(&path) {
                Answer { status: 200, .. } => self.refuse_method(allowed),
                other => other,
            },
            // nginx serves files and knows no other method on them.
            _ if self.style == Style::Nginx => self.error(405),
            b"OPTIONS" => Answer {
                extra: vec![("Allow", allowed.to_owned())],
                ..page(200, Vec::new())
            },
            b"PUT" | b"DELETE" | b"PATCH" | b"TRACE" | b"CONNECT" => self.refuse_method(allowed),
            _ => self.error(501),
        }
    }

    fn refuse_method(&self, allowed: &str) -> Answer {
        let mut answer = self.error(405);
        answer.extra.push(("Allow", allowed.to_owned()));
        answer
    }

    fn page(&self, path: &str) -> Answer {
        match path {
            "/" | "/index.html" => Answer {
                kind: "text/html",
                file: true,
                ..page(200, self.start.clone())
            },
            "/login" | "/login/" => self.login(false),
            "/robots.txt" => Answer {
                kind: "text/plain",
                file: true,
                ..page(200, self.robots.clone())
            },
            "/favicon.ico" => Answer {
                kind: "image/vnd.microsoft.icon",
                file: true,
                ..page(200, self.icon.clone())
            },
            "/admin" | "/admin/" | "/manager/html" => {
                let mut answer = self.error(401);
                answer.extra.push((
                    "WWW-Authenticate",
                    format!("Basic realm=\"{}\"", self.realm),
                ));
                answer
            }
            "/server-status" | "/.htaccess" | "/.htpasswd" => self.error(403),
            _ => self.error(404),
        }
    }

    fn login(&self, failed: bool) -> Answer {
        let note = if failed {
            "<p class=\"error\">Invalid username or password.</p>\n"
        } else {
            ""
        };
        let title = &self.title;
        page(
            200,
            format!(
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title} - Sign in</title>\n</head>\n<body>\n<h1>{title}</h1>\n{note}<form method=\"post\" action=\"/login\">\n<label>Username <input name=\"username\" autocomplete=\"username\"></label>\n<label>Password <input name=\"password\" type=\"password\"></label>\n<button type=\"submit\">Sign in</button>\n</form>\n</body>\n</html>\n"
            ),
        )
    }

    /// The server's own page for a status.
    pub(super) fn error(&self, status: u16) -> Answer {
        let reason = reason(status);
        let body = match self.style {
            Style::Apache => {
                let text = match status {
                    400 => {
                        "Your browser sent a request that this server could not understand.<br />\n"
                    }
                    401 => {
                        "This server could not verify that you\nare authorized to access the document\nrequested.  Either you supplied the wrong\ncredentials (e.g., bad password), or your\nbrowser doesn't understand how to supply\nthe credentials required."
                    }
                    403 => "You don't have permission to access this resource.",
                    404 => "The requested URL was not found on this server.",
                    405 => "The requested method is not allowed for this URL.",
                    413 => {
                        "The requested resource does not allow request data with the requests, or the amount of data provided in\nthe request exceeds the capacity limit."
                    }
                    414 => {
                        "The requested URL's length exceeds the capacity\nlimit for this server.<br />\n"
                    }
                    431 => "Size of a request header field exceeds server limit.<br />\n",
                    _ => "The request method is not supported for current URL.<br />\n",
                };
                format!(
                    "<!DOCTYPE HTML PUBLIC \"-//IETF//DTD HTML 2.0//EN\">\n<html><head>\n<title>{status} {reason}</title>\n</head><body>\n<h1>{reason}</h1>\n<p>{text}</p>\n<hr>\n<address>{} Server at {} Port 80</address>\n</body></html>\n",
                    self.server, self.host
                )
            }
            Style::Nginx => {
                let reason = match status {
                    401 => "Authorization Required",
                    405 => "Not Allowed",
                    status => reason_in_page(status),
                };
                format!(
                    "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n<hr><center>{}</center>\r\n</body>\r\n</html>\r\n",
                    self.server
                )
            }
            Style::Iis => format!(
                "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\"\"http://www.w3.org/TR/html4/strict.dtd\">\r\n<HTML><HEAD><TITLE>{reason}</TITLE>\r\n<META HTTP-EQUIV=\"Content-Type\" Content=\"text/html; charset=us-ascii\"></HEAD>\r\n<BODY><h2>{reason}</h2>\r\n<hr><p>HTTP Error {status}. {reason}.</p>\r\n</BODY></HTML>\r\n"
            ),
            Style::Other => format!(
                "<!DOCTYPE html>\n<html>\n <head>\n  <title>{status} {reason}</title>\n </head>\n <body>\n  <h1>{status} {reason}</h1>\n </body>\n</html>\n"
            ),
        };
        let kind = if self.style == Style::Apache {
            "text/html; charset=iso-8859-1"
        } else {
            "text/html"
        };
        Answer {
            kind,
            ..page(status, body)
        }
    }

    /// The bytes of an answer, its fields in the order of the server.
    pub(super) fn encode(
        &self,
        answer: &Answer,
        now: OffsetDateTime,
        keep: bool,
        with_body: bool,
    ) -> Vec<u8> {
        let length = answer.body.len();
        let date = ("Date", http_date(now));
        let server = ("Server", self.server.clone());
        let kind = ("Content-Type", answer.kind.to_owned());
        let length = ("Content-Length", length.to_string());
        let connection = match (keep, self.style) {
            (false, _) => Some("close"),
            (true, Style::Nginx) => Some("keep-alive"),
            (true, Style::Apache | Style::Iis | Style::Other) => None,
        }
        .map(|text| ("Connection", text.to_owned()));
        let mut file = Vec::new();
        if answer.file {
            let modified = ("Last-Modified", http_date(self.made));
            let tag = (
                "ETag",
                match self.style {
                    Style::Apache => format!("\"{:x}-{}\"", answer.body.len(), self.tag),
                    Style::Nginx => format!(
                        "\"{:x}-{:x}\"",
                        self.made.unix_timestamp(),
                        answer.body.len()
                    ),
                    Style::Iis => format!("\"{}:0\"", self.tag),
                    Style::Other => format!("\"{}\"", self.tag),
                },
            );
            file = vec![modified, tag, ("Accept-Ranges", "bytes".to_owned())];
        }
        let extra = answer.extra.clone();
        let fields: Vec<(&str, String)> = match self.style {
            Style::Apache => [
                vec![date, server],
                extra,
                file,
                vec![length],
                connection.into_iter().collect(),
                vec![kind],
            ],
            Style::Nginx => {
                let modified: Vec<_> = file.drain(..file.len().min(1)).collect();
                [
                    vec![server, date, kind, length],
                    modified,
                    connection.into_iter().collect(),
                    extra,
                    file,
                    Vec::new(),
                ]
            }
            Style::Iis => [
                vec![kind],
                extra,
                file,
                vec![server],
                connection.into_iter().collect(),
                vec![date, length],
            ],
            Style::Other => [
                vec![kind],
                extra,
                file,
                vec![length],
                connection.into_iter().collect(),
                vec![date, server],
            ],
        }
        .concat();
        let mut out =
            format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status)).into_bytes();
        for (name, value) in fields {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if with_body {
            out.extend_from_slice(&answer.body);
        }
        out
    }
}

fn page(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status,
        kind: "text/html; charset=UTF-8",
        extra: Vec::new(),
        body: body.into(),
        file: false,
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        431 => "Request Header Fields Too Large",
        _ => "Not Implemented",
    }
}

fn reason_in_page(status: u16) -> &'static str {
    match status {
        414 => "Request-URI Too Large",
        431 => "Request Header Or Cookie Too Large",
        status => reason(status),
    }
}

fn http_date(at: OffsetDateTime) -> String {
    at.format(format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    ))
    .unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A 16 by 16 icon with a pattern of its own: scanners compare icons by their hash.
fn icon(facts: &Facts) -> Vec<u8> {
    let colours = facts.seed.derive("icon colours");
    let pattern = facts.seed.derive("icon pattern");
    let mut icon = vec![
        0, 0, 1, 0, 1, 0, 16, 16, 0, 0, 1, 0, 32, 0, 0x68, 4, 0, 0, 22, 0, 0, 0,
    ];
    icon.extend([40, 0, 0, 0, 16, 0, 0, 0, 32, 0, 0, 0, 1, 0, 32, 0]);
    icon.extend([0; 24]);
    for row in 0..16_usize {
        for column in 0..16_usize {
            // Mirrored, as a sign and not as noise.
            let bit = row * 8 + column.min(15 - column);
            let set = pattern[bit / 8] >> (bit % 8) & 1 == 1;
            let colour = if set { &colours[..3] } else { &colours[3..6] };
            icon.extend_from_slice(colour);
            icon.push(255);
        }
    }
    icon.extend([0; 64]);
    icon
}
