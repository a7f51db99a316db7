#!/bin/sh
# Makes the certificates anew. Needs openssl 3.
set -eu
cd "$(dirname "$0")"
NAMES="DNS:localhost,DNS:backend.test,IP:127.0.0.1,IP:::1"
DAYS=36500

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

signed() { # name, subject, subjectAltName, further options of `openssl ca`-less signing
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
  printf 'subjectAltName=%s\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n' "$3" > "$1.ext"
  name=$1; shift 3
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -extfile "$name.ext" \
    -out "$name.crt" "$@" 2>/dev/null
  cat "$name.key" "$name.crt" > "$name.pem"
}

key ca
openssl req -x509 -new -key ca.key -subj "/CN=test CA" -days $DAYS -out ca.pem \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
signed server localhost "$NAMES" -days $DAYS
signed elsewhere elsewhere.test "DNS:elsewhere.test" -days $DAYS
signed client first "DNS:first.test" -days $DAYS
signed client2 second "DNS:second.test" -days $DAYS

# `openssl x509` cannot sign into the past, `openssl ca` can.
key expired
openssl req -new -key expired.key -subj "/CN=localhost" -out expired.csr
printf 'subjectAltName=%s\n' "$NAMES" > expired.ext
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' > ca.cnf
: > index.txt; echo 01 > serial
openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in expired.csr -out expired.crt \
  -extfile expired.ext -startdate 20190101000000Z -enddate 20200101000000Z -notext 2>/dev/null
cat expired.key expired.crt > expired.pem

key stranger
openssl req -x509 -new -key stranger.key -subj "/CN=localhost" -days $DAYS -out stranger.crt \
  -addext "subjectAltName=$NAMES"
cat stranger.key stranger.crt > stranger.pem

rm -f ./*.csr ./*.ext ./*.key ./*.crt ./*.srl ca.cnf index.txt* serial* 0*.pem
