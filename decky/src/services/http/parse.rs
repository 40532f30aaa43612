//! Parses the head of a request, and forms; keeps bytes, order and case.

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: Vec<u8>,
    pub(super) target: Vec<u8>,
    minor: u8,
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Whether a body follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(usize),
    Chunked,
}

/// Most header fields.
const MAX_FIELDS: usize = 100;

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

impl Head {
    /// Parses lines that end with a line feed; none when they are no head.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let mut words = lines.next()?.split(|byte| *byte == b' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !is_token(method) || target.is_empty() {
            return None;
        }
        let minor = match version {
            b"HTTP/1.0" => 0,
            b"HTTP/1.1" => 1,
            _ => return None,
        };
        let mut fields = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if !is_token(name) || fields.len() >= MAX_FIELDS {
                return None;
            }
            fields.push((name.to_vec(), value.trim_ascii().to_vec()));
        }
        Some(Self {
            method: method.to_vec(),
            target: target.to_vec(),
            minor,
            fields,
        })
    }

    /// The first value of a field, its name in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_slice())
    }

    /// The path of the target, without its query.
    pub(super) fn path(&self) -> String {
        let target = self.target.as_slice();
        let target = match target.windows(3).position(|window| window == b"://") {
            Some(at) if !target.starts_with(b"/") => {
                let rest = &target[at + 3..];
                let slash = rest
                    .iter()
                    .position(|byte| *byte == b'/')
                    .unwrap_or(rest.len());
                &rest[slash..]
            }
            Some(_) | None => target,
        };
        let end = target
            .iter()
            .position(|byte| matches!(byte, b'?' | b'#'))
            .unwrap_or(target.len());
        let path = String::from_utf8_lossy(&decode(&target[..end], false)).into_owned();
        if path.is_empty() {
            "/".to_owned()
        } else {
            path
        }
    }

    /// Whether a body follows; none when the fields contradict each other.
    pub(super) fn body(&self) -> Option<Body> {
        if let Some(coding) = self.field("transfer-encoding") {
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            return chunked.then_some(Body::Chunked);
        }
        match self.field("content-length") {
            None => Some(Body::None),
            Some(length) if length.iter().all(u8::is_ascii_digit) => std::str::from_utf8(length)
                .ok()?
                .parse()
                .ok()
                .map(Body::Length),
            Some(_) => None,
        }
    }

    /// Whether the connection goes on after the answer.
    pub(super) fn keeps_alive(&self) -> bool {
        let connection = self
            .field("connection")
            .unwrap_or_default()
            .to_ascii_lowercase();
        match self.minor {
            0 => connection == b"keep-alive",
            _ => connection != b"close",
        }
    }
}

/// The length in the first line of a chunk.
pub(super) fn chunk_length(line: &[u8]) -> Option<usize> {
    let end = line
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(line.len());
    let digits = std::str::from_utf8(line[..end].trim_ascii()).ok()?;
    (digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| usize::from_str_radix(digits, 16).ok())?
}

/// Undoes percent-encoding, and `+` for a blank if `form`.
fn decode(bytes: &[u8], form: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let mut byte = [0];
        match first {
            b'%' if tail.len() >= 2 && hex::decode_to_slice(&tail[..2], &mut byte).is_ok() => {
                out.push(byte[0]);
                rest = &tail[2..];
            }
            b'+' if form => out.push(b' '),
            first => out.push(*first),
        }
    }
    out
}

/// The name and password of a form, by the names that such fields have.
pub(super) fn credentials(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    const USERS: [&[u8]; 9] = [
        b"username",
        b"user",
        b"login",
        b"email",
        b"log",
        b"name",
        b"uname",
        b"userid",
        b"user_name",
    ];
    const PASSWORDS: [&[u8]; 6] = [b"password", b"pass", b"pwd", b"passwd", b"psw", b"pw"];
    let fields: Vec<(Vec<u8>, Vec<u8>)> = body
        .split(|byte| *byte == b'&')
        .take(64)
        .filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            Some((
                decode(&pair[..at], true).to_ascii_lowercase(),
                decode(&pair[at + 1..], true),
            ))
        })
        .collect();
    let value = |names: &[&[u8]]| {
        fields
            .iter()
            .find(|(name, _)| names.contains(&name.as_slice()))
            .map(|(_, value)| value.clone())
    };
    let password = value(&PASSWORDS)?;
    Some((value(&USERS).unwrap_or_default(), password))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_keeps_the_order_and_case_of_its_fields() {
        let head = Head::parse(b"GET /a%20b?c=d HTTP/1.1\nhOsT: x\nX-Two:  2 \nhost: y\n\n")
            .expect("well formed");
        assert_eq!(head.path(), "/a b");
        let fields = [("hOsT", "x"), ("X-Two", "2"), ("host", "y")];
        assert_eq!(
            head.fields,
            fields.map(|(name, value)| (name.into(), value.into()))
        );
        assert_eq!(head.field("host"), Some(&b"x"[..]));
        assert!(head.keeps_alive());
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for bytes in [
            &b"GET /\n\n"[..],
            b"GET / HTTP/2.0\n\n",
            b"GET  / HTTP/1.1\n\n",
            b"\x16\x03\x01\x02\x00\x01\n",
            b"GET / HTTP/1.1\nno colon\n\n",
            b"GET / HTTP/1.1\nbad name: x\n\n",
            b"",
        ] {
            assert_eq!(Head::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_form_gives_its_credentials_decoded() {
        let both = |user: &str, password: &str| Some((user.into(), password.into()));
        assert_eq!(
            credentials(b"csrf=1&username=ad%6din&password=a+b%26c"),
            both("admin", "a b&c")
        );
        assert_eq!(credentials(b"log=wp&pwd=x"), both("wp", "x"));
        assert_eq!(credentials(b"q=search"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes: Vec<u8>) {
            if let Some(head) = Head::parse(&bytes) {
                head.path();
                head.body();
            }
            credentials(&bytes);
            chunk_length(&bytes);
        }

        #[test]
        fn no_head_makes_the_parser_panic(target: Vec<u8>, name: Vec<u8>, value: Vec<u8>) {
            let bytes = [b"GET ", target.as_slice(), b" HTTP/1.1\n", &name, b": ", &value, b"\n\n"].concat();
            if let Some(head) = Head::parse(&bytes) {
                head.path();
                head.body();
            }
        }
    }
}
