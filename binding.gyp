{
  "variables": { "sanitize%": 0 },
  "targets": [
    {
      "target_name": "passel",
      "sources": [ "<!@(ls src/native/*.c)" ],
      "cflags_c": [ "-std=c11", "-O3", "-Wall", "-Wextra", "-Wconversion", "-fvisibility=hidden" ],
      "defines": [ "NAPI_VERSION=9", "_GNU_SOURCE" ],
      "conditions": [
        [ "sanitize==1", {
          "cflags_c": [ "-O1", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined" ],
          "ldflags": [ "-fsanitize=address,undefined" ]
        } ]
      ]
    }
  ]
}
