# peft-train for the CPU:
#   docker build -t peft-train .
#   docker run --rm -v "$PWD:/work" peft-train demo
FROM node:22-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build
RUN node scripts/stage.mjs /package && cd /package && npm pack --ignore-scripts && mv peft-train-*.tgz /peft-train.tgz

FROM node:22-bookworm-slim
ENV PEFT_TRAIN_CACHE=/opt/peft-train
COPY --from=build /peft-train.tgz /tmp/peft-train.tgz
RUN npm install --global --no-audit --no-fund /tmp/peft-train.tgz && rm /tmp/peft-train.tgz
RUN peft-train setup --device cpu && peft-train doctor
WORKDIR /work
RUN chown node:node /work /opt/peft-train
USER node
ENTRYPOINT ["peft-train"]
CMD ["--help"]
