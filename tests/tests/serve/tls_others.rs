//! Clients that others wrote, against a server behind TLS: those that this machine has.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nonforker::{ClientAuth, Limits};

use crate::{
    client::{hear, next},
    harness::{PATIENCE, on_every_driver},
    tls::{NAME, guarded},
    tls_client::{Authority, Pair},
};

/// Files for a program, in a folder that goes with it.
struct Files(PathBuf);

impl Files {
    fn new(texts: &[(&str, String)]) -> Self {
        let name = format!("nonforker-tls-{}-{:p}", std::process::id(), &texts);
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder can be made");
        for (name, text) in texts {
            fs::write(folder.join(name), text).expect("a file can be written");
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program with this input, of which a bar is a pause, for ten seconds at most, and returns what it said, on both streams. `None` if there is no
/// such program.
fn run(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        let _ = writeln!(std::io::stderr(), "skipped: there is no {program}");
        return None;
    };
    let mut stdin = child.stdin.take().expect("it is piped");
    for part in input.split_inclusive('|') {
        // It may have ended before it read all.
        let _ = stdin.write_all(part.trim_end_matches('|').as_bytes());
        if part.ends_with('|') {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    drop(stdin);
    let until = Instant::now() + PATIENCE / 2;
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > until {
            child.kill().expect("it runs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("it can be waited for");
    let (said, wrong) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some(format!("{said}\n{wrong}"))
}

/// Runs a script with an interpreter, which it tells where a server behind TLS is and the file with its authority.
fn script_is_served(interpreter: &str, flag: &str, script: &str, is_right: fn(&str) -> bool) {
    on_every_driver(|case| {
        let authority = Authority::new();
        let files = Files::new(&[("ca.pem", authority.pem())]);
        let (server, _told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let address = server.address().to_string();
        let address = address.trim_start_matches("tcp://");
        let arguments = [flag, script, address, &files.path("ca.pem")];
        let Some(said) = run(interpreter, &arguments, "") else { return };
        assert!(is_right(&said), "{said}");
    });
}

#[test]
fn openssl_is_served() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let Pair { certificate, key } = authority.signs(&["me"], |_| ());
        let files = Files::new(&[
            ("ca.pem", authority.pem()),
            ("own.pem", certificate.pem() + &key.serialize_pem()),
            ("session", String::new()),
        ]);
        let tls = authority.tls(&[NAME]).alpn(["lines"]).expect("a good name");
        let tls = tls.client_auth_pem(ClientAuth::Optional, authority.pem().as_bytes());
        let (server, _told) = guarded(case, tls.expect("good"), Limits::new());
        let address = server.address().to_string();
        let address = address.trim_start_matches("tcp://");
        let (ca, own, session) =
            (files.path("ca.pem"), files.path("own.pem"), files.path("session"));
        let common = ["s_client", "-connect", address, "-CAfile", &ca, "-servername", NAME];
        let ask = |more: &[&str], input: &str| run("openssl", &[&common[..], more].concat(), input);
        for (more, input, expected) in [
            (&["-tls1_3", "-verify_return_error"][..], "|facts\nclose\n|", "TLSv1.3 TLS_AES_128"),
            (&["-tls1_2", "-sess_out", &session], "|facts\nclose\n|", "TLSv1.2 TLS_ECDHE_ECDSA"),
            (&["-tls1_2", "-sess_in", &session], "|close\n|", "Reused, TLSv1.2"),
            (&["-tls1_3", "-sess_out", &session], "|x\nclose\n|", "bye"),
            (&["-tls1_3", "-sess_in", &session], "|close\n|", "Reused, TLSv1.3"),
            (&["-tls1_3", "-cert", &own, "-key", &own], "|facts\nclose\n|", "\"server.test\") ["),
            (&["-tls1_3", "-alpn", "x,lines"], "|facts\nclose\n|", "Some(\"lines\")"),
            (&["-alpn", "x"], "", "alert number 120"),
            (&["-tls1_1"], "", "alert"),
            (&["-tls1_3"], "|K\n|facts\nclose\n|", "TLSv1.3 TLS_AES_128"),
            (&["-tls1_3"], "|k\n|facts\nclose\n|", "TLSv1.3 TLS_AES_128"),
            (&["-tls1_2"], "|R\n|", "no renegotiation"),
            (&["-tls1_3", "-groups", "P-256"], "|facts\nclose\n|", "TLSv1.3"),
        ] {
            let Some(said) = ask(more, input) else { return };
            assert!(said.contains(expected), "{more:?} {input:?}: {said}");
        }
    });
}

/// A server of OpenSSL for one connection, whose tickets allow early data, and where it is.
fn allows_early_data(own: &str) -> Option<(Child, String)> {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-tls1_3", "-naccept", "1"]);
    command.args(["-max_early_data", "16000", "-cert", own, "-key", own]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let stdout = child.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.strip_prefix("ACCEPT ")?.to_owned()));
    Some((child, address.expect("it says where it is")))
}

/// Early data can be played again by somebody else. Our tickets do not allow it, so a client that sends some was
/// served by another server before, under the same name.
#[test]
fn early_data_is_no_request_and_its_client_is_served() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let Pair { certificate, key } = authority.signs(&[NAME], |_| ());
        let files = Files::new(&[
            ("ca.pem", authority.pem()),
            ("own.pem", certificate.pem() + &key.serialize_pem()),
            ("early", "early\n".to_owned()),
            ("session", String::new()),
        ]);
        let [ca, own, early, session] =
            ["ca.pem", "own.pem", "early", "session"].map(|name| files.path(name));
        let ask = |address: &str, more: &[&str], input: &str| {
            let common = ["s_client", "-connect", address, "-CAfile", &ca, "-servername", NAME];
            run("openssl", &[&common[..], more].concat(), input)
        };
        let Some((mut other, address)) = allows_early_data(&own) else { return };
        let Some(said) = ask(&address, &["-sess_out", &session], "|x\n|") else { return };
        assert!(said.contains("Max Early Data: 16000"), "{said}");
        let _ = other.kill();
        other.wait().expect("it can be waited for");

        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let address = server.address().to_string();
        let address = address.trim_start_matches("tcp://");
        let more = ["-sess_in", &session, "-early_data", &early];
        let Some(said) = ask(address, &more, "|facts\nclose\n|") else { return };
        assert!(said.contains("Early data was rejected"), "{said}");
        assert!(said.contains("TLSv1.3 TLS_AES_128"), "{said}");
        assert_eq!((next(&told), next(&told)), ("open true".into(), "frame facts".into()));
    });
}

#[test]
fn python_is_served() {
    const SCRIPT: &str = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
host, port = sys.argv[1].rsplit(':', 1)
raw = socket.create_connection((host, int(port)), timeout=20)
tls = context.wrap_socket(raw, server_hostname='server.test')
stream = tls.makefile('rwb')
stream.write(b'x' * 100000 + b'\\nfacts\\n')
stream.flush()
assert stream.readline() == b'x' * 100000 + b'\\n'
print(stream.readline().decode())
raw = tls.unwrap()
print('closed')
";
    script_is_served("python3", "-c", SCRIPT, |said| {
        said.contains("TLSv1.3 ") && said.contains("closed")
    });
}

#[test]
fn curl_is_served() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let files = Files::new(&[("ca.pem", authority.pem())]);
        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let address = server.address().to_string();
        let port = address.rsplit(':').next().unwrap_or_default();
        let url = format!("https://{NAME}:{port}/");
        let resolve = format!("{NAME}:{port}:127.0.0.1");
        let ca = files.path("ca.pem");
        // It gets lines instead of HTTP, and says so; but TLS it has.
        let arguments =
            ["-sv", "--http0.9", "-m", "2", "--cacert", &ca, "--resolve", &resolve, &url];
        let Some(said) = run("curl", &arguments, "") else { return };
        assert!(said.contains("SSL certificate verify ok"), "{said}");
        hear(&told, "frame GET / HTTP/1.1\r");
    });
}

#[test]
fn node_is_served() {
    const SCRIPT: &str = "
const fs = require('fs'), tls = require('tls');
const [host, port] = process.argv[1].split(':');
const options = {host, port: Number(port), servername: 'server.test', ca: fs.readFileSync(process.argv[2])};
const first = tls.connect(options, () => first.write('x'.repeat(100000) + '\\nfacts\\nclose\\n'));
let said = '', session;
first.on('session', ticket => session = ticket);
first.on('data', bytes => said += bytes);
first.on('end', () => {
    console.log(said.slice(0, 100000) === 'x'.repeat(100000), said.slice(100001));
    const second = tls.connect({...options, session}, () => second.end('facts\\n'));
    second.on('data', bytes => console.log('again', second.isSessionReused(), bytes.toString()));
    second.on('end', () => console.log('closed'));
});
";
    script_is_served("node", "-e", SCRIPT, |said| {
        let is_right = said.contains("true TLSv1.3 ") && said.contains("again true TLSv1.3 ");
        is_right && said.contains("closed")
    });
}

#[test]
fn go_is_served() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let Pair { certificate, key } = authority.signs(&["me"], |_| ());
        let files = Files::new(&[
            ("ca.pem", authority.pem()),
            ("own.pem", certificate.pem() + &key.serialize_pem()),
            ("client.go", include_str!("tls_client.go").to_owned()),
        ]);
        let [ca, own, source, client] =
            ["ca.pem", "own.pem", "client.go", "client"].map(|name| files.path(name));
        // The first time it builds its own library, too.
        let built = Command::new("go").args(["build", "-o", &client, &source]).output();
        let Ok(built) = built else {
            let _ = writeln!(std::io::stderr(), "skipped: there is no go");
            return;
        };
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let tls = authority.tls(&[NAME]).alpn(["lines"]).expect("a good name");
        let tls = tls.client_auth_pem(ClientAuth::Required, authority.pem().as_bytes());
        let (server, _told) = guarded(case, tls.expect("good"), Limits::new());
        let address = server.address().to_string();
        let address = address.trim_start_matches("tcp://");
        let said = run(&client, &[address, &ca, &own], "").expect("it was built");
        assert!(said.contains("all is right"), "{said}");
    });
}
