//! File transfer: the control channel by hand, data connections to the client and nobody else.

mod data;
mod tree;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use domain::event::{AuthMethod, AuthOutcome};
use domain::service::ServiceOptions;
use sha2::{Digest, Sha256};

use self::data::Channel;
use self::tree::Tree;
use crate::persona::Facts;
use crate::serve::{Buffered, Meter, Read, Service, Session, Wire};

/// Longest command line.
const MAX_LINE: usize = 1024;
/// Most commands of one connection.
const MAX_COMMANDS: usize = 2000;
/// Failed logins before the connection is closed, as vsftpd.
const MAX_ATTEMPTS: u32 = 3;

/// The service.
pub(crate) struct Ftp {
    banner: String,
    anonymous: bool,
    facts: Arc<Facts>,
    tree: Tree,
}

impl Ftp {
    pub(crate) fn new(options: &ServiceOptions, facts: Arc<Facts>) -> Self {
        let banner = match options.text("banner") {
            Some(banner) => banner,
            None => facts
                .seed
                .choose("ftp", facts.release.ftp)
                .copied()
                .unwrap_or("FTP server ready."),
        };
        Self {
            banner: banner.trim_start_matches("220 ").to_owned(),
            anonymous: options
                .boolean("anonymous")
                .unwrap_or_else(|| facts.seed.pick("ftp anonymous", 2) == 1),
            tree: Tree::new(&facts),
            facts,
        }
    }
}

#[async_trait]
impl Service for Ftp {
    async fn serve(&self, session: &Session, wire: Wire) -> io::Result<()> {
        let meter = wire.meter();
        let mut control = Control {
            ftp: self,
            session,
            stream: Buffered::new(wire),
            meter,
            user: Vec::new(),
            attempts: 0,
            inside: false,
            cwd: "/".to_owned(),
            channel: Channel::None,
        };
        control.say(&format!("220 {}", self.banner)).await?;
        for _ in 0..MAX_COMMANDS {
            let line = match control.stream.line(MAX_LINE).await? {
                Read::Whole(line) => strip_telnet(line),
                Read::TooLong(start) => {
                    session.raw("a command line too long", &start).await;
                    return control.say("500 Input line too long.").await;
                }
                Read::End(rest) => {
                    if !rest.is_empty() {
                        session.raw("a command line cut off", &rest).await;
                    }
                    return Ok(());
                }
            };
            let end = line
                .iter()
                .position(|byte| *byte == b' ')
                .unwrap_or(line.len());
            let verb = String::from_utf8_lossy(&line[..end]).to_ascii_uppercase();
            let argument = line.get(end + 1..).unwrap_or_default();
            // A password is told as credentials, with the name that came before it.
            if verb != "PASS" {
                session.command(&line).await;
            }
            if !control.command(&verb, argument).await? {
                return Ok(());
            }
        }
        control.say("421 Timeout.").await
    }
}

/// Takes out the telnet commands by which clients announce ABOR.
fn strip_telnet(line: Vec<u8>) -> Vec<u8> {
    line.into_iter().skip_while(|byte| *byte >= 0xf0).collect()
}

struct Control<'a> {
    ftp: &'a Ftp,
    session: &'a Session,
    stream: Buffered<Wire>,
    meter: Arc<Meter>,
    user: Vec<u8>,
    attempts: u32,
    inside: bool,
    cwd: String,
    channel: Channel,
}

impl Control<'_> {
    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write(format!("{text}\r\n").as_bytes()).await
    }

    /// Answers a command; false when the connection is done.
    async fn command(&mut self, verb: &str, argument: &[u8]) -> io::Result<bool> {
        let text = String::from_utf8_lossy(argument).into_owned();
        let answer = match verb {
            "USER" if self.inside => "530 Can't change from guest user.",
            "USER" => {
                self.user = argument.to_vec();
                "331 Please specify the password."
            }
            "PASS" if self.inside => "230 Already logged in.",
            "PASS" if self.user.is_empty() => "503 Login with USER first.",
            "PASS" => return self.password(argument).await,
            "QUIT" => {
                self.say("221 Goodbye.").await?;
                return Ok(false);
            }
            "FEAT" => {
                "211-Features:\r\n EPRT\r\n EPSV\r\n MDTM\r\n PASV\r\n REST STREAM\r\n SIZE\r\n TVFS\r\n UTF8\r\n211 End"
            }
            "OPTS" if text.eq_ignore_ascii_case("utf8 on") => "200 Always in UTF8 mode.",
            "OPTS" => "501 Option not understood.",
            "AUTH" | "ADAT" | "PBSZ" | "PROT" => "530 Please login with USER and PASS.",
            _ if !self.inside => "530 Please login with USER and PASS.",
            "SYST" => "215 UNIX Type: L8",
            "NOOP" => "200 NOOP ok.",
            "HELP" => {
                "214-The following commands are recognized.\r\n ABOR ACCT ALLO APPE CDUP CWD  DELE EPRT EPSV FEAT HELP LIST MDTM MKD\r\n MODE NLST NOOP OPTS PASS PASV PORT PWD  QUIT REIN REST RETR RMD  RNFR\r\n RNTO SITE SIZE SMNT STAT STOR STOU STRU SYST TYPE USER XCUP XCWD XMKD\r\n XPWD XRMD\r\n214 Help OK."
            }
            "TYPE" if text.starts_with(['I', 'i', 'L', 'l']) => "200 Switching to Binary mode.",
            "TYPE" if text.starts_with(['A', 'a']) => "200 Switching to ASCII mode.",
            "TYPE" => "500 Unrecognised TYPE command.",
            "MODE" if text.eq_ignore_ascii_case("s") => "200 Mode set to S.",
            "STRU" if text.eq_ignore_ascii_case("f") => "200 Structure set to F.",
            "REST" => "350 Restart position accepted (0).",
            "ABOR" => "225 No transfer to ABOR.",
            "STAT" => {
                "211-FTP server status:\r\n     Logged in as ftp\r\n     TYPE: BINARY\r\n     Session timeout in seconds is 300\r\n     Control connection is plain text\r\n     Data connections will be plain text\r\n211 End of status"
            }
            "PWD" | "XPWD" => &format!("257 \"{}\" is the current directory", self.cwd),
            "CWD" | "XCWD" => self.change(&text),
            "CDUP" | "XCUP" => self.change(".."),
            "MKD" | "XMKD" => "550 Create directory operation failed.",
            "RMD" | "XRMD" => "550 Remove directory operation failed.",
            "DELE" => "550 Delete operation failed.",
            "RNFR" => "550 RNFR command failed.",
            "RNTO" => "503 RNFR required first.",
            "SITE" => "500 Unknown SITE command.",
            "ALLO" => "202 ALLO command ignored.",
            "PASV" | "EPSV" => &self.passive(verb).await,
            "PORT" | "EPRT" => self.active(verb, &text),
            "SIZE" => &match self.file(&text) {
                Some(bytes) => format!("213 {}", bytes.len()),
                None => "550 Could not get file size.".to_owned(),
            },
            "MDTM" => &match self.file(&text) {
                Some(_) => format!("213 {}", self.ftp.tree.stamp(&tree::join(&self.cwd, &text))),
                None => "550 Could not get file modification time.".to_owned(),
            },
            "LIST" | "NLST" | "MLSD" => return self.list(verb, &text).await,
            "RETR" => return self.retrieve(&text).await,
            "STOR" | "APPE" | "STOU" => return self.store(&text).await,
            _ => "500 Unknown command.",
        };
        // The borrow of a formatted answer ends with this copy.
        let answer = answer.to_owned();
        self.say(&answer).await?;
        Ok(true)
    }

    async fn password(&mut self, password: &[u8]) -> io::Result<bool> {
        let anonymous = [&b"anonymous"[..], b"ftp"]
            .iter()
            .any(|name| self.user.eq_ignore_ascii_case(name));
        let accepted = anonymous && self.ftp.anonymous;
        let outcome = if accepted {
            AuthOutcome::Accepted
        } else {
            AuthOutcome::Rejected
        };
        self.session
            .auth(AuthMethod::Password, &self.user, password, outcome)
            .await;
        if accepted {
            self.inside = true;
            self.say("230 Login successful.").await?;
            return Ok(true);
        }
        self.user.clear();
        self.attempts += 1;
        tokio::time::sleep(self.ftp.facts.fail_delay).await;
        self.say("530 Login incorrect.").await?;
        Ok(self.attempts < MAX_ATTEMPTS)
    }

    fn change(&mut self, path: &str) -> &'static str {
        let path = tree::join(&self.cwd, path);
        if self.ftp.tree.is_directory(&path) {
            self.cwd = path;
            "250 Directory successfully changed."
        } else {
            "550 Failed to change directory."
        }
    }

    fn file(&self, path: &str) -> Option<&[u8]> {
        self.ftp.tree.file(&tree::join(&self.cwd, path))
    }

    async fn passive(&mut self, verb: &str) -> String {
        let local = self.session.destination().ip();
        let Ok((channel, port)) = Channel::passive(local).await else {
            return "425 Can't open passive connection.".to_owned();
        };
        let answer = match (verb, local) {
            ("PASV", IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                let [high, low] = port.to_be_bytes();
                format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low}).")
            }
            ("PASV", IpAddr::V6(_)) => return "425 Use EPSV.".to_owned(),
            (_, _) => format!("229 Entering Extended Passive Mode (|||{port}|)"),
        };
        self.channel = channel;
        answer
    }

    fn active(&mut self, verb: &str, text: &str) -> &'static str {
        let target = if verb == "PORT" {
            data::parse_port(text)
        } else {
            data::parse_eprt(text)
        };
        // A server that connects to anybody but the client scans for its clients.
        let Some(target) = target.filter(|target| {
            target.ip().to_canonical() == self.session.source().ip() && target.port() >= 1024
        }) else {
            return if verb == "PORT" {
                "500 Illegal PORT command."
            } else {
                "500 Illegal EPRT command."
            };
        };
        self.channel = Channel::Active(target);
        if verb == "PORT" {
            "200 PORT command successful. Consider using PASV."
        } else {
            "200 EPRT command successful. Consider using EPSV."
        }
    }

    async fn list(&mut self, verb: &str, text: &str) -> io::Result<bool> {
        let path = text
            .split(' ')
            .find(|word| !word.starts_with('-'))
            .unwrap_or_default();
        let path = tree::join(&self.cwd, path);
        let listing = self
            .ftp
            .tree
            .list(&path, verb == "NLST", self.session.now());
        self.send(
            "150 Here comes the directory listing.",
            listing.as_bytes(),
            "226 Directory send OK.",
        )
        .await
    }

    async fn retrieve(&mut self, text: &str) -> io::Result<bool> {
        let Some(bytes) = self.file(text).map(<[u8]>::to_vec) else {
            self.say("550 Failed to open file.").await?;
            return Ok(true);
        };
        let name: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        let opening = format!(
            "150 Opening BINARY mode data connection for {name} ({} bytes).",
            bytes.len()
        );
        self.send(&opening, &bytes, "226 Transfer complete.").await
    }

    async fn send(&mut self, opening: &str, bytes: &[u8], done: &str) -> io::Result<bool> {
        let channel = std::mem::take(&mut self.channel);
        if matches!(channel, Channel::None) {
            self.say("425 Use PORT or PASV first.").await?;
            return Ok(true);
        }
        let peer: SocketAddr = self.session.source();
        // vsftpd answers after the data connection stands.
        let answer = match channel.open(peer).await {
            Ok(stream) => {
                self.say(opening).await?;
                match data::send(stream, bytes).await {
                    Ok(()) => {
                        self.meter.count_sent(bytes.len());
                        done
                    }
                    Err(_) => "426 Failure writing network stream.",
                }
            }
            Err(_) => "425 Failed to establish connection.",
        };
        self.say(answer).await?;
        Ok(true)
    }

    /// Takes a file: its bytes are hashed and forgotten.
    async fn store(&mut self, text: &str) -> io::Result<bool> {
        let channel = std::mem::take(&mut self.channel);
        if matches!(channel, Channel::None) {
            self.say("425 Use PORT or PASV first.").await?;
            return Ok(true);
        }
        let Ok(stream) = channel.open(self.session.source()).await else {
            self.say("425 Failed to establish connection.").await?;
            return Ok(true);
        };
        self.say("150 Ok to send data.").await?;
        let mut hash = Sha256::new();
        let meter = Arc::clone(&self.meter);
        let received = data::receive(stream, |bytes| {
            hash.update(bytes);
            meter.count_received(bytes.len());
        })
        .await;
        let name: String = text.chars().take(500).collect();
        let digest = hex::encode(hash.finalize());
        let (size, answer) = match received {
            Ok(size) => (size, "226 Transfer complete."),
            Err(size) => (
                size,
                "552 Requested file action aborted. Exceeded storage allocation.",
            ),
        };
        self.session
            .command(format!("upload {name} size={size} sha256={digest}").as_bytes())
            .await;
        self.say(answer).await?;
        Ok(true)
    }
}
