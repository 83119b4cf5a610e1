module github.com/rotatord/rotatord/.ci/editor

go 1.26.0
