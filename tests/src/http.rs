//! As much of HTTP/1.1 as stands between a client and an engine: heads, and where bodies end.

use std::io::{self, BufRead, Read};

/// The longest head, and the longest body that is read as a whole.
const LONGEST_HEAD: usize = 64 * 1024;
pub(crate) const LONGEST_BODY: u64 = 1024 * 1024;
const MOST_HEADERS: usize = 64;

/// Header fields, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    fn parse(fields: &[httparse::Header<'_>]) -> Self {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        Self(fields.iter().map(|field| (field.name.to_owned(), text(field.value))).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.iter();
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push((name.into(), value.into()));
    }

    pub(crate) fn upgrades(&self) -> bool {
        self.get("Upgrade").is_some()
    }

    /// How the end of the body behind these headers is found.
    pub(crate) fn framing(&self) -> io::Result<Framing> {
        if self.get("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Framing::Chunked);
        }
        match self.get("Content-Length") {
            None => Ok(Framing::Unsaid),
            Some(length) => Ok(Framing::Length(length.parse().map_err(invalid)?)),
        }
    }

    fn write(&self, head: &mut String) {
        for (name, value) in &self.0 {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
    }
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// A request has no body then; a response goes on until the connection ends.
    Unsaid,
}

/// The head of a request.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Headers,
}

impl RequestHead {
    /// Reads a head; `None` when the client has nothing more to ask.
    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(bytes) = head(from)? else { return Ok(None) };
        let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Request::new(&mut fields);
        parsed.parse(&bytes).map_err(invalid)?;
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(invalid("a request without a method or a target"));
        };
        let headers = Headers::parse(parsed.headers);
        Ok(Some(Self { method: method.into(), target: target.into(), headers }))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        self.headers.write(&mut head);
        head.into_bytes()
    }
}

/// The head of a response.
#[derive(Debug, Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Headers,
}

impl ResponseHead {
    /// One without headers yet.
    pub(crate) fn new(status: u16) -> Self {
        Self { status, reason: reason(status).to_owned(), headers: Headers::default() }
    }

    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let bytes = head(from)?.ok_or_else(|| invalid("a connection that ended without an answer"))?;
        let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut fields);
        parsed.parse(&bytes).map_err(invalid)?;
        let status = parsed.code.ok_or_else(|| invalid("a response without a status"))?;
        let reason = parsed.reason.unwrap_or_default().to_owned();
        Ok(Self { status, reason, headers: Headers::parse(parsed.headers) })
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason);
        self.headers.write(&mut head);
        head.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "UPGRADED",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        409 => "Conflict",
        500 => "Internal Server Error",
        _ => "Other",
    }
}

/// The bytes of a head with the empty line that ends it; `None` when there are none.
fn head(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let room = u64::try_from(LONGEST_HEAD - bytes.len()).unwrap_or(0);
        if from.take(room).read_until(b'\n', &mut bytes)? == 0 {
            return if bytes.is_empty() { Ok(None) } else { Err(invalid("a head without an end")) };
        }
    }
    Ok(Some(bytes))
}

/// Reads a body of at most [`LONGEST_BODY`] to its end.
pub(crate) fn body(from: &mut impl BufRead, framing: Framing) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match framing {
        Framing::Length(length) if length > LONGEST_BODY => return Err(invalid("a body that is too long")),
        Framing::Length(length) => drop(from.take(length).read_to_end(&mut bytes)?),
        Framing::Unsaid => drop(from.read_to_end(&mut bytes)?),
        Framing::Chunked => chunks(from, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            u64::try_from(bytes.len()).is_ok_and(|length| length <= LONGEST_BODY)
        })?,
    }
    Ok(bytes)
}

/// Reads what a client goes on sending although it is refused: one whose answer came earlier might not see it.
pub(crate) fn drain(from: &mut impl BufRead, framing: Framing) -> io::Result<()> {
    match framing {
        Framing::Length(length) => io::copy(&mut from.take(length), &mut io::sink()).map(drop),
        Framing::Chunked => chunks(from, &mut |_| true),
        Framing::Unsaid => Ok(()),
    }
}

/// Reads the chunks of a body (RFC 9112, section 7.1), for as long as they are wanted.
fn chunks(from: &mut impl BufRead, wanted: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let mut chunk = vec![0; usize::from_str_radix(size, 16).map_err(invalid)?];
        from.read_exact(&mut chunk)?;
        if chunk.is_empty() {
            // The trailer, which nobody sends, and the empty line behind it.
            while from.read_line(&mut line)? > 2 {
                line.clear();
            }
            return Ok(());
        }
        from.read_exact(&mut [0; 2])?;
        if !wanted(&chunk) {
            return Err(invalid("a body that is too long"));
        }
    }
}

pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The parameters of a query, decoded.
pub(crate) fn parameters(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| (decoded(n), decoded(v)))
        .collect()
}

/// Undoes the encoding of a URL: see <https://url.spec.whatwg.org/#urlencoded-parsing>.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match (byte, code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let mut bytes: &[u8] =
            b"POST /v1.25/build?t=x HTTP/1.1\r\nHost: docker\r\nContent-Length: 2\r\n\r\nabc";
        let head = RequestHead::read(&mut bytes).unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.target.as_str()), ("POST", "/v1.25/build?t=x"));
        assert_eq!(head.headers.get("host"), Some("docker"));
        assert_eq!(head.headers.framing().unwrap(), Framing::Length(2));
        assert_eq!(body(&mut bytes, Framing::Length(2)).unwrap(), b"ab");
        assert_eq!(bytes, b"c");
        assert!(head.bytes().ends_with(b"Content-Length: 2\r\n\r\n"));
        assert!(RequestHead::read(&mut &b""[..]).unwrap().is_none());
        assert!(RequestHead::read(&mut &b"GET / HTTP/1.1\r\nHost:"[..]).is_err());
    }

    #[test]
    fn chunks_end_where_they_say() {
        let mut bytes: &[u8] = b"3\r\nabc\r\n2;name=value\r\nde\r\n0\r\n\r\nnext";
        assert_eq!(body(&mut bytes, Framing::Chunked).unwrap(), b"abcde");
        assert_eq!(bytes, b"next");
    }

    #[test]
    fn queries_are_decoded() {
        let expected = [("filters", "{\"label\":[\"a b\"]}"), ("all", "1"), ("x", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parameters("filters=%7B%22label%22%3A%5B%22a+b%22%5D%7D&all=1&x"), expected);
        assert_eq!(parameters(""), []);
    }
}
