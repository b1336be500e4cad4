// Verifies a sigstore bundle with @sigstore/verify:
//
//     node verify.js KEY.pem BUNDLE.json SHA256-HEX REPOSITORY TAG
//
// Ends with 0 if the bundle is accepted, with 1 if it is refused, with 2 for any other fault.
"use strict";

const fs = require("node:fs");
const crypto = require("node:crypto");
const { bundleFromJSON } = require("@sigstore/bundle");
const { toSignedEntity, toTrustMaterial, Verifier } = require("@sigstore/verify");

const judge = (pem, text, hex, repository, tag) => {
  const publicKey = crypto.createPublicKey(pem);
  const spki = publicKey.export({ type: "spki", format: "der" });
  const hint = crypto.createHash("sha256").update(spki).digest("base64");
  const findKey = (named) => {
    if (named !== hint) throw new Error("the bundle names another key");
    return { publicKey, validFor: () => true };
  };
  const nobody = { certificateAuthorities: [], ctlogs: [], timestampAuthorities: [], tlogs: [] };
  const none = { ctlogThreshold: 0, timestampThreshold: 0, tlogThreshold: 0 };
  const bundle = bundleFromJSON(JSON.parse(text));
  new Verifier(toTrustMaterial(nobody, findKey), none).verify(toSignedEntity(bundle));
  // What a library of signatures leaves to whoever calls it.
  const statement = JSON.parse(bundle.content.dsseEnvelope.payload);
  const [subject] = statement.subject;
  const same =
    statement.predicateType === "https://sigstore.dev/cosign/sign/v1" &&
    subject.digest.sha256 === hex &&
    subject.name === repository &&
    subject.annotations.tag === tag;
  if (!same) throw new Error("the bundle is for another image");
};

const [keyFile, bundleFile, ...wanted] = process.argv.slice(2);
let input;
try {
  input = [fs.readFileSync(keyFile), fs.readFileSync(bundleFile, "utf8")];
} catch (error) {
  console.error(error);
  process.exit(2);
}
try {
  judge(...input, ...wanted);
} catch (error) {
  console.error(String(error));
  process.exit(1);
}
