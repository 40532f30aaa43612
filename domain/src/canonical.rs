//! Canonical JSON (RFC 8785) of strings, whole numbers, flags, lists and objects.
//!
//! A value writes its text straight to where that goes, a string or a digest: no tree is made of it.
//! Floats have no place in anything that is hashed, so the hard part of the RFC (section 3.2.2.3)
//! does not arise; whole numbers stay below 2^53, where every JSON reader agrees.

use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

/// A value of which there is exactly one JSON text.
pub(crate) trait Canonical {
    /// Writes that text.
    fn write_to(&self, out: &mut impl Write) -> fmt::Result;
}

/// The one text of `value`.
pub(crate) fn text(value: &impl Canonical) -> String {
    let mut text = String::new();
    let written = value.write_to(&mut text);
    written.expect("a string takes everything, and no value fails by itself");
    text
}

/// SHA-256 of the text that `write` writes.
pub(crate) fn digest(write: impl FnOnce(&mut Hashing) -> fmt::Result) -> [u8; 32] {
    let mut hashing = Hashing {
        hash: Sha256::new(),
        // Some blocks: a hash is slow at being given a few bytes at a time.
        held: String::with_capacity(4096),
    };
    let written = write(&mut hashing);
    written.expect("a hash takes everything, and no value fails by itself");
    hashing.drain();
    hashing.hash.finalize().into()
}

/// The hash of what is written to it.
pub(crate) struct Hashing {
    hash: Sha256,
    held: String,
}

impl Hashing {
    // Out of the way of the many writes that only add to what is held.
    #[cold]
    fn drain(&mut self) {
        self.hash.update(&self.held);
        self.held.clear();
    }
}

impl Write for Hashing {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.held.capacity() - self.held.len() {
            self.drain();
        }
        self.held.push_str(text);
        Ok(())
    }
}

/// Writes variables as the members of an object, each under its own name. They stand in the
/// canonical order, or it does not compile.
macro_rules! object {
    ($out:expr, $first:ident $(, $other:ident)* $(,)?) => {{
        const _: () = assert!($crate::canonical::ascend(
            &[stringify!($first) $(, stringify!($other))*],
        ));
        $out.write_str(concat!("{\"", stringify!($first), "\":"))?;
        $first.write_to($out)?;
        $(
            $out.write_str(concat!(",\"", stringify!($other), "\":"))?;
            $other.write_to($out)?;
        )*
        $out.write_str("}")
    }};
}
pub(crate) use object;

/// Whether `keys` stand in the canonical order, and are of ASCII, where that is the order of bytes.
pub(crate) const fn ascend(keys: &[&str]) -> bool {
    match keys {
        [first, rest @ ..] => {
            first.is_ascii()
                && (rest.is_empty() || precedes(first.as_bytes(), rest[0].as_bytes()))
                && ascend(rest)
        }
        [] => true,
    }
}

const fn precedes(a: &[u8], b: &[u8]) -> bool {
    match (a, b) {
        ([a, rest_a @ ..], [b, rest_b @ ..]) => *a < *b || *a == *b && precedes(rest_a, rest_b),
        (_, b) => !b.is_empty(),
    }
}

/// Writes an object whose keys are known only now, in any order.
pub(crate) fn write_members<'k, 'v, V: Canonical + 'v>(
    members: impl Iterator<Item = (&'k str, &'v V)>,
    out: &mut impl Write,
) -> fmt::Result {
    let mut members: Vec<_> = members.collect();
    members.sort_by(|(a, _), (b, _)| {
        // By UTF-16 code units (section 3.2.3), which is not the order of bytes beyond the basic
        // plane. Most keys are of ASCII, where it is.
        if a.is_ascii() && b.is_ascii() {
            a.cmp(b)
        } else {
            a.encode_utf16().cmp(b.encode_utf16())
        }
    });
    out.write_str("{")?;
    for (index, (key, value)) in members.into_iter().enumerate() {
        out.write_str(if index > 0 { "," } else { "" })?;
        key.write_to(out)?;
        out.write_str(":")?;
        value.write_to(out)?;
    }
    out.write_str("}")
}

/// Writes what `value` displays, as a JSON string.
pub(crate) fn write_displayed(value: &impl fmt::Display, out: &mut impl Write) -> fmt::Result {
    out.write_str("\"")?;
    write!(Escaping(out), "{value}")?;
    out.write_str("\"")
}

impl<T: Canonical> Canonical for Option<T> {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        match self {
            Some(value) => value.write_to(out),
            None => out.write_str("null"),
        }
    }
}

impl Canonical for bool {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        out.write_str(if *self { "true" } else { "false" })
    }
}

macro_rules! number {
    ($($type:ident)*) => {$(
        impl Canonical for $type {
            fn write_to(&self, out: &mut impl Write) -> fmt::Result {
                write!(out, "{self}")
            }
        }
    )*};
}

number! { i64 u32 u16 }

impl Canonical for str {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        out.write_str("\"")?;
        Escaping(out).write_str(self)?;
        out.write_str("\"")
    }
}

impl Canonical for String {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        self.as_str().write_to(out)
    }
}

impl<T: Canonical> Canonical for [T] {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        out.write_str("[")?;
        for (index, item) in self.iter().enumerate() {
            out.write_str(if index > 0 { "," } else { "" })?;
            item.write_to(out)?;
        }
        out.write_str("]")
    }
}

/// Escapes as section 3.2.2.2 demands: the shortest form, lower-case hexadecimal.
struct Escaping<'a, W>(&'a mut W);

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        let must = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
        while let Some(at) = rest.bytes().position(must) {
            self.0.write_str(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                8 => self.0.write_str("\\b")?,
                b'\t' => self.0.write_str("\\t")?,
                b'\n' => self.0.write_str("\\n")?,
                0xc => self.0.write_str("\\f")?,
                b'\r' => self.0.write_str("\\r")?,
                control => write!(self.0, "\\u{control:04x}")?,
            }
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests;
