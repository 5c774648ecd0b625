/**
 * The container image: an OCI image layout in a tar archive ("oci-archive"), made without a
 * container engine. Of an operating system it has glibc, a user and a folder for what the beacon
 * keeps; no shell.
 *
 *   podman load --input pilot-beacon-0.1.0-oci.tar
 *   podman run --publish 9001:9001/udp localhost/pilot-beacon:0.1.0
 */
import type { Contents } from "./contents.ts";
import type { Libc } from "./libc.ts";
import { DESCRIPTION, LICENSE, MACHINES, NAME, VERSION } from "./release.ts";
import { type Entry, gzip, tar, textEntry } from "./tar.ts";

/** No user of any host has this number, by custom. */
const USER = 65532;
const STATE_FOLDER = "var/lib/pilot-beacon";

const MEDIA = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar+gzip",
} as const;

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

const digest = (data: Uint8Array | string): string =>
  `sha256:${new Bun.CryptoHasher("sha256").update(data).digest("hex")}`;

/** What lies in blobs/sha256, by the names that others point to. */
class Blobs {
  readonly entries: Entry[] = [];

  add(mediaType: string, data: Uint8Array): Descriptor {
    const name = digest(data);
    this.entries.push({ path: `blobs/${name.replace(":", "/")}`, data });
    return { mediaType, digest: name, size: data.length };
  }

  addJson(mediaType: string, value: object): Descriptor {
    return this.add(mediaType, Buffer.from(JSON.stringify(value)));
  }
}

/** What a machine's image holds beside glibc. */
function beaconFiles({ binary, license, notices }: Contents): Entry[] {
  return [
    { path: "usr/bin/beacon", data: binary, mode: 0o755 },
    { path: STATE_FOLDER, mode: 0o700, owner: USER },
    { path: "tmp", mode: 0o1777 },
    textEntry(
      "etc/passwd",
      `root:x:0:0:root:/:/sbin/nologin\nbeacon:x:${USER}:${USER}::/${STATE_FOLDER}:/sbin/nologin\n`,
    ),
    textEntry("etc/group", `root:x:0:\nbeacon:x:${USER}:\n`),
    textEntry(`usr/share/doc/${NAME}/LICENSE`, license),
    textEntry(`usr/share/doc/${NAME}/LICENSES-OF-OTHERS`, notices),
  ];
}

/** Adds one machine's image. */
function addMachine(blobs: Blobs, contents: Contents, libc: Libc, architecture: string) {
  const created = new Date(contents.timeS * 1000).toISOString();
  const parts = [
    { files: libc.files, from: `libc6 ${libc.version} of Debian` },
    { files: beaconFiles(contents), from: `${NAME} ${VERSION}` },
  ];
  const layers = parts.map(({ files, from }) => {
    const plain = tar(files, "", contents.timeS);
    return { from, diffId: digest(plain), descriptor: blobs.add(MEDIA.layer, gzip(plain)) };
  });
  const labels = {
    "org.opencontainers.image.title": NAME,
    "org.opencontainers.image.description": DESCRIPTION,
    "org.opencontainers.image.version": VERSION,
    "org.opencontainers.image.licenses": LICENSE,
    "org.opencontainers.image.created": created,
  };
  const config = blobs.addJson(MEDIA.config, {
    created,
    architecture,
    os: "linux",
    config: {
      User: `${USER}:${USER}`,
      // The process that stays: the container ends with its first one. Other commands may stand
      // behind it.
      Entrypoint: ["/usr/bin/beacon", "supervise"],
      WorkingDir: "/",
      // HTTP is served on loopback unless told otherwise, and then reached from within the
      // container alone.
      ExposedPorts: { "9001/udp": {}, "9002/tcp": {} },
      StopSignal: "SIGTERM",
      Labels: labels,
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
    history: layers.map(({ from }) => ({ created, created_by: from })),
  });
  const manifest = blobs.addJson(MEDIA.manifest, {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config,
    layers: layers.map(({ descriptor }) => descriptor),
    annotations: labels,
  });
  return { ...manifest, platform: { architecture, os: "linux" } };
}

export const IMAGE_NAME = `${NAME}-${VERSION}-oci.tar`;

/**
 * One image of several machines' builds.
 * @param parts the builds, of targets that Debian has, each with its glibc
 */
export function image(
  parts: readonly { readonly contents: Contents; readonly libc: Libc }[],
): Uint8Array {
  const blobs = new Blobs();
  const manifests = parts.map(({ contents, libc }) =>
    addMachine(blobs, contents, libc, MACHINES[contents.target].debian!),
  );
  const all = blobs.addJson(MEDIA.index, { schemaVersion: 2, mediaType: MEDIA.index, manifests });
  // The layout's own index names one thing, an index again, so that who loads it gets the image of
  // their machine by one name.
  const annotations = { "org.opencontainers.image.ref.name": `${NAME}:${VERSION}` };
  const index = { schemaVersion: 2, mediaType: MEDIA.index, manifests: [{ ...all, annotations }] };
  const json = (path: string, value: object) => textEntry(path, JSON.stringify(value));
  return tar(
    [
      json("oci-layout", { imageLayoutVersion: "1.0.0" }),
      json("index.json", index),
      ...blobs.entries,
    ],
    "",
    parts[0]!.contents.timeS,
  );
}
